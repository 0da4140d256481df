"""Keys of groups: as users write them, and as text that is the same in every session."""

from __future__ import annotations

import datetime
import json
import math
from typing import Any

#: What a key may be: text, a number, a date or time, or a tuple of these.
Key = str | int | float | datetime.date | datetime.datetime | tuple[Any, ...]


def plain(value: Any) -> Key:
    """Return *value* as a plain Python key: of numpy's and pandas' scalars the Python value.

    Raises
    ------
    ValueError
        It is null.
    TypeError
        It is no key: see :data:`Key`.
    """
    if isinstance(value, tuple):
        return tuple(plain(item) for item in value)
    if type(value).__module__.partition(".")[0] == "numpy" and hasattr(value, "item"):
        value = value.item()
    # pandas' NaT and NA do not equal themselves, as NaN does not
    if value is None or type(value).__name__ in ("NaTType", "NAType") or (isinstance(value, float) and value != value):
        raise ValueError("A key must not be null.")
    if isinstance(value, datetime.datetime):
        return datetime.datetime.fromisoformat(value.isoformat())
    if isinstance(value, float) and value.is_integer() and not math.isinf(value):
        return int(value)  # as they are equal in Python, they are the same key
    if isinstance(value, (str, int, float, datetime.date)):
        return value
    raise TypeError(f"A key is text, a number, a date or a tuple of these, not {type(value).__name__}: {value!r}.")


def encode(key: Any) -> str:
    """Return a key as JSON; raises as :func:`plain`."""
    return json.dumps(_to_json(plain(key)), separators=(",", ":"), ensure_ascii=False)


def decode(text: str) -> Key:
    """Return the key that :func:`encode` has written."""
    return _from_json(json.loads(text))


def rank(key: Key) -> tuple[Any, ...]:
    """Return what keys are sorted by: numbers, then times, then text, then tuples."""
    match key:
        case tuple():
            return (3, tuple(rank(item) for item in key))
        case str():
            return (2, key)
        case datetime.date():  # a time of day goes behind the day
            return (1, key.isoformat())
    return (0, key)


def _to_json(key: Key) -> Any:
    match key:
        case tuple():
            return [_to_json(item) for item in key]
        case datetime.datetime():
            return {"datetime": key.isoformat()}
        case datetime.date():
            return {"date": key.isoformat()}
    return key


def _from_json(value: Any) -> Key:
    match value:
        case list():
            return tuple(_from_json(item) for item in value)
        case {"datetime": str(text)}:
            return datetime.datetime.fromisoformat(text)
        case {"date": str(text)}:
            return datetime.date.fromisoformat(text)
    key: Key = value
    return key
