"""What an executor's process writes to descriptors 1 and 2, on its way into the executor's log.

Subprocesses, C code and the interpreter's last words go to a file that nobody has to read for them to go on. From there
the text is *taken* into the log: by the executor when a task ends and twice a second while one runs, which knows whose
it is; by its agent when the executor is gone, or has not done so for a while because it is stuck. A lock on the file
says who does, and a note beside it how far they got.
"""

from __future__ import annotations

import fcntl
import os
import struct

#: Bytes taken at once: of more, the last.
MAX_TAKEN = 256 * 1024
#: Bytes of the file after which it begins anew.
MAX_RAW = 512 * 1024
_POSITION = struct.Struct("q")


def raw_path(directory: str | os.PathLike[str], executor_id: str) -> str:
    """Return where descriptors 1 and 2 of an executor lead."""
    return os.path.join(directory, f"{executor_id}.raw")


class RawOutput:
    """One executor's; any number of processes may have one of it. Not thread-safe."""

    def __init__(self, directory: str | os.PathLike[str], executor_id: str) -> None:
        """Open the file.

        Raises
        ------
        OSError
            There is none.
        """
        self._raw = os.open(raw_path(directory, executor_id), os.O_RDWR | os.O_CLOEXEC)
        try:
            note = os.path.join(directory, f"{executor_id}.taken")
            self._note = os.open(note, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        except OSError:
            os.close(self._raw)
            raise
        #: How big the file was when all of it had been taken.
        self._seen = 0

    def close(self) -> None:
        os.close(self._raw)
        os.close(self._note)

    @property
    def num_waiting(self) -> int:
        """Bytes that nobody has taken."""
        return os.fstat(self._raw).st_size - self._position()

    def take(self, *, at_end: bool = False) -> str:
        """Return whole lines that nobody has taken; "" if there are none, or somebody else takes them just now.

        With *at_end* nothing more will come: the last line needs no end.
        """
        size = os.fstat(self._raw).st_size
        if size == self._seen and not at_end:
            return ""
        try:
            fcntl.flock(self._raw, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return ""
        try:
            return self._take(os.fstat(self._raw).st_size, at_end)
        finally:
            fcntl.flock(self._raw, fcntl.LOCK_UN)

    def _take(self, size: int, at_end: bool) -> str:
        position = min(self._position(), size)
        skipped = max(0, size - position - MAX_TAKEN)
        data = os.pread(self._raw, min(size - position, MAX_TAKEN), position + skipped)
        whole = len(data)
        if not at_end and len(data) < MAX_TAKEN:
            whole = data.rfind(b"\n") + 1
        position += skipped + whole
        if position == size and size > MAX_RAW:
            os.ftruncate(self._raw, 0)
            position = size = 0
        os.pwrite(self._note, _POSITION.pack(position), 0)
        self._seen = size
        text = data[:whole].decode(errors="replace")
        if skipped:
            text = f"… {skipped:,} bytes left out, written faster than they are kept\n{text.partition(chr(10))[2]}"
        return text.removesuffix("\n")

    def _position(self) -> int:
        data = os.pread(self._note, _POSITION.size, 0)
        return int(_POSITION.unpack(data)[0]) if len(data) == _POSITION.size else 0
