"""What the node's NVIDIA devices do, as their driver says (through ``nvidia-ml-py``, if that is installed).

Written after the library's documentation and tested with a stand-in for it: no machine of the project has such a
device.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable, Sequence
from typing import Any

logger = logging.getLogger("shoal")

#: Name, ratio of the time in which it was at work, bytes of memory, and how many of them are used.
GpuRow = tuple[str, float, int, int]


def _load() -> Any:
    return importlib.import_module("pynvml")


class GpuMeter:
    """Looks at devices; at none if there is no library or no driver. Not thread-safe."""

    def __init__(self, devices: Sequence[str], load: Callable[[], Any] = _load) -> None:
        """Look at these *devices*: their numbers, or their ids (``GPU-…``), as ``CUDA_VISIBLE_DEVICES`` has them.

        ``load()`` imports the library; it is called at the first look, if there are devices.
        """
        self._devices = tuple(devices)
        self._load = load
        self._library: Any = None
        self._handles: list[tuple[str, Any]] = []

    def look(self) -> tuple[GpuRow, ...]:
        """Return a row for each device; none for those that give no answer."""
        if not self._devices:
            return ()
        if self._library is None:
            try:
                self._open()
            except Exception as error:  # boundary: whatever is wrong with a driver, the node works without its numbers
                logger.info("the use of GPUs is not shown: %s", error)
                self._devices = ()
                return ()
        rows = []
        for name, handle in self._handles:
            try:
                memory = self._library.nvmlDeviceGetMemoryInfo(handle)
                ratio = self._library.nvmlDeviceGetUtilizationRates(handle).gpu / 100
            except Exception:  # boundary: as above; it may come back
                continue
            rows.append((name, min(1.0, max(0.0, ratio)), int(memory.total), int(memory.used)))
        return tuple(rows)

    def _open(self) -> None:
        library = self._load()
        library.nvmlInit()
        for device in self._devices:
            handle = (
                library.nvmlDeviceGetHandleByIndex(int(device))
                if device.isdigit()
                else library.nvmlDeviceGetHandleByUUID(device)
            )
            name = library.nvmlDeviceGetName(handle)
            self._handles.append((name.decode() if isinstance(name, bytes) else str(name), handle))
        self._library = library
