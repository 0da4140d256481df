"""What the machine itself does: copying in memory, and writing to disk."""

from __future__ import annotations

import ctypes
import mmap
import os
import tempfile
import time
from pathlib import Path

import numpy as np
from serve import serve

SHARED = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
CHUNK = 8 << 20


class Rows:
    """Rates are in GB/s."""

    def __init__(self):
        self.array = None

    def make_array(self, count):
        self.array = np.ones(100_000_000)  # 800 MB
        self.target = np.zeros_like(self.array)
        self.target[:] = 2

    def copy_800_megabytes(self, count):
        """Into memory of this process that is there already: the whole array at once, the C library's way."""
        rates = []
        for _ in range(count):
            begin = time.perf_counter()
            ctypes.memmove(self.target.ctypes.data, self.array.ctypes.data, self.array.nbytes)
            rates.append(0.8 / (time.perf_counter() - begin))
        return {"rates": rates}

    def copy_to_fresh_shared(self, count):
        """Into pages of shared memory that are not there yet."""
        rates = []
        for _ in range(count):
            with tempfile.TemporaryFile(dir=SHARED) as file:
                file.truncate(self.array.nbytes)
                with mmap.mmap(file.fileno(), self.array.nbytes) as mapping:
                    target = np.frombuffer(mapping)
                    begin = time.perf_counter()
                    np.copyto(target, self.array)
                    rates.append(0.8 / (time.perf_counter() - begin))
                    del target
        return {"rates": rates}

    def copy_to_shared(self, count):
        """Into pages of shared memory that are there already."""
        rates = []
        with tempfile.TemporaryFile(dir=SHARED) as file:
            file.truncate(self.array.nbytes)
            with mmap.mmap(file.fileno(), self.array.nbytes) as mapping:
                target = np.frombuffer(mapping)
                target[:] = 2
                for _ in range(count):
                    begin = time.perf_counter()
                    np.copyto(target, self.array)
                    rates.append(0.8 / (time.perf_counter() - begin))
                del target
        return {"rates": rates}

    def write_files(self, count):
        """Write files as large as the spilled ones, one after the other."""
        directory = Path(os.environ["SHOAL_SPILL_DIR"])
        arrays = np.ones((count, 12_000_000))  # 96 MB each
        begin = time.perf_counter()
        for index, array in enumerate(arrays):
            descriptor = os.open(directory / f"plain-{index}", os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600)
            data = memoryview(array).cast("B")
            done = 0
            while done < len(data):
                done += os.write(descriptor, data[done : done + CHUNK])
            os.close(descriptor)
        return {"stored": time.perf_counter() - begin, "spilled": arrays.nbytes}

    def close(self):
        pass


if __name__ == "__main__":
    serve(Rows)
