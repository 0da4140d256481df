"""Many models: one for each key, each set of parameters, each way of training."""
