"""Where the blocks of a dataset come from."""
