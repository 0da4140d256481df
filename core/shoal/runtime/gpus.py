"""The accelerators of this machine."""

from __future__ import annotations

import os
from pathlib import Path

_PROC = Path("/proc/driver/nvidia/gpus")


def count_gpus() -> int:
    """Return how many NVIDIA devices this process may use: those of ``CUDA_VISIBLE_DEVICES``, else all there are."""
    mask = os.environ.get("CUDA_VISIBLE_DEVICES")
    if mask is not None:
        return len(_split(mask))
    try:
        return len(list(_PROC.iterdir()))
    except OSError:
        return 0


def visible_gpus(count: int) -> tuple[str, ...]:
    """Return the ids of *count* devices, as ``CUDA_VISIBLE_DEVICES`` would have them."""
    mask = _split(os.environ.get("CUDA_VISIBLE_DEVICES", ""))
    return tuple(mask[:count]) if len(mask) >= count else tuple(str(number) for number in range(count))


def _split(mask: str) -> list[str]:
    return [device for device in mask.split(",") if device and device != "-1"]
