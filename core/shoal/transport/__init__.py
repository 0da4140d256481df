"""A thin layer over ``distributed.comm``: connect, listen, and streams of batched messages."""
