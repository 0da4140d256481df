"""One model over a device mesh: pipelines of stages, with PyTorch's own means."""
