"""What takes the place of a value that does not travel with an error: its type, its size and what it looks like."""

from __future__ import annotations

import dataclasses
import reprlib
from typing import Any

from shoal.model.amounts import format_nbytes

#: Characters that travel: of a value's ``repr``, and of its type's name.
MAX_TEXT, MAX_KIND = 400, 100


@dataclasses.dataclass(frozen=True, repr=False)
class StandIn:
    """Stands for a local variable that stayed where the error was raised; shows what the value looked like."""

    #: The type's name, with its module where that says something.
    kind: str
    #: The value's ``repr``, at most :data:`MAX_TEXT` characters; "" if it was not to be had.
    text: str
    #: Why the value did not travel.
    reason: str
    #: Bytes, or number of items, in words; "" if nobody knows.
    size: str = ""
    shape: tuple[int, ...] | None = None
    dtype: str = ""

    def __repr__(self) -> str:
        shape = f"shape {self.shape}" if self.shape is not None else ""
        facts = ", ".join(fact for fact in (shape, self.dtype, self.size) if fact)
        head = f"<{self.kind}{f' ({facts})' if facts else ''} stayed remote: {self.reason}>"
        return f"{head} {self.text}" if self.text else head


def stand_in(value: Any, reason: str) -> StandIn:
    """Describe *value*. Runs its ``__repr__``, and its ``nbytes``, ``shape`` and ``dtype``, whatever those do."""
    return StandIn(kind_of(value), _text(value), reason, _size(value), _shape(value), _dtype(value))


def unseen(value: Any, reason: str) -> StandIn:
    """Say no more of *value* than its type: no code of its own runs."""
    return StandIn(kind_of(value), "", reason)


def kind_of(value: Any) -> str:
    """Return how to call the type of *value*; never asks the value."""
    cls = type(value)
    module = cls.__module__ if isinstance(cls.__module__, str) else ""
    kind = cls.__qualname__ if module in ("builtins", "__main__", "") else f"{module}.{cls.__qualname__}"
    return kind if len(kind) <= MAX_KIND else f"{kind[: MAX_KIND - 1]}…"


class _Repr(reprlib.Repr):
    """Cuts containers before they are written out, and gets over a ``__repr__`` that raises."""

    def __init__(self) -> None:
        super().__init__()
        self.maxother = self.maxstring = self.maxlong = MAX_TEXT
        self.maxdict = self.maxlist = self.maxtuple = self.maxset = self.maxfrozenset = self.maxdeque = 12

    def repr_instance(self, x: Any, level: int) -> str:
        text = super().repr_instance(x, level)
        return " ".join(text.split()) if "\n" in text else text


def _text(value: Any) -> str:
    try:
        text = _Repr().repr(value)
    except Exception as error:  # boundary: whatever a `__repr__` raises, and integers that are too long for one
        text = f"(its `__repr__` raised {type(error).__name__})"
    return text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 1] + "…"


def _size(value: Any) -> str:
    nbytes = _attribute(value, "nbytes")
    if type(nbytes) is not int and isinstance(value, str | bytes | bytearray | memoryview):
        nbytes = len(value)
    if type(nbytes) is int:
        return format_nbytes(nbytes)
    if isinstance(value, list | tuple | dict | set | frozenset):
        return f"{len(value):,} item{'s' if len(value) != 1 else ''}"
    return ""


def _shape(value: Any) -> tuple[int, ...] | None:
    try:
        return tuple(int(length) for length in value.shape)
    except Exception:  # boundary: most values have none, and some do anything when asked
        return None


def _dtype(value: Any) -> str:
    dtype = _attribute(value, "dtype")
    text = _text(dtype) if dtype is not None else ""
    return text.removeprefix("dtype('").removesuffix("')")


def _attribute(value: Any, name: str) -> Any:
    try:
        return getattr(value, name, None)
    except Exception:  # boundary: properties are user code
        return None
