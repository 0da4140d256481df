"""Small values that the controller keeps by name, for actors that have to remember something when they come back."""

from __future__ import annotations

#: Bytes of one value, and of all, at most: this is memory of the scheduler's process.
MAX_VALUE = 16 << 20
MAX_TOTAL = 128 << 20


class KeptValues:
    """Bytes by key, for as long as the controller lives."""

    def __init__(self) -> None:
        self._values: dict[str, bytes] = {}
        self._total = 0

    def keep(self, key: str, value: bytes) -> str:
        """Keep *value*, or nothing any more if it is empty; returns why not, or ""."""
        if not isinstance(value, bytes | bytearray | memoryview):
            return f"the value of `{key}` is no bytes"
        before = len(self._values.get(key, b""))
        if len(value) > MAX_VALUE or self._total - before + len(value) > MAX_TOTAL:
            return (
                f"`{key}` has {len(value):,} bytes: the controller keeps {MAX_VALUE:,} bytes of one value, and "
                f"{MAX_TOTAL:,} of all, of which {self._total:,} are used"
            )
        self._total += len(value) - before
        if value:
            self._values[key] = bytes(value)
        else:
            self._values.pop(key, None)
        return ""

    def find(self, key: str) -> bytes:
        """Return the value of *key*; empty if there is none."""
        return self._values.get(key, b"")
