"""The ledger of a store: how many bytes its files in memory take, known to every process of the node.

One number in a file, changed under the file's lock. It is a cache of what the directory says (the sum of all files'
sizes), and can be counted again at any time under the same lock: every change of a file's size, or of the files
there are, is made while holding it.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator

from shoal.runtime.store.segment import unlock, wait_for_lock

#: Seconds to wait for another process that changes it: that takes milliseconds.
TIMEOUT = 30.0
_NBYTES = 8


class Account:
    """The number, while it may be changed."""

    def __init__(self, used: int) -> None:
        self.used = used


class Ledger:
    """See the module's description. For any thread of any process; a forked child opens the file afresh."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._mutex = threading.Lock()
        self._descriptor = -1
        self._pid = 0

    @staticmethod
    def create(path: str) -> Ledger:
        with open(path, "xb") as file:
            file.write(bytes(_NBYTES))
        os.chmod(path, 0o600)
        return Ledger(path)

    @contextlib.contextmanager
    def changing(self) -> Iterator[Account]:
        """Give the caller, and nobody else on this node, the account to change.

        Raises
        ------
        OSError
            The store is gone (``FileNotFoundError``), or somebody who has it does not go on (``TimeoutError``).
        """
        with self._mutex:
            descriptor = self._open()
            if not wait_for_lock(descriptor, exclusive=True, timeout=TIMEOUT):
                raise TimeoutError(f"`{self._path}` has been locked by another process for {TIMEOUT:g} s")
            before = int.from_bytes(os.pread(descriptor, _NBYTES, 0), "little")
            account = Account(before)
            try:
                yield account
            finally:
                if account.used != before:
                    os.pwrite(descriptor, max(0, account.used).to_bytes(_NBYTES, "little"), 0)
                unlock(descriptor)

    def read(self) -> int:
        """Return the number as it is now, without waiting for anybody."""
        with self._mutex:
            return int.from_bytes(os.pread(self._open(), _NBYTES, 0), "little")

    def close(self) -> None:
        with self._mutex:
            if self._pid == os.getpid():
                os.close(self._descriptor)
            self._pid = 0

    def _open(self) -> int:
        # A lock belongs to the open file, which a forked child shares with its parent: it opens its own.
        if self._pid != os.getpid():
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
            self._pid = os.getpid()
        return self._descriptor
