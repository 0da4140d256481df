"""Workload helpers of shoal: inference, serving, training, tuning and reinforcement learning."""

from shoal._version import __version__

__all__ = ["__version__"]
