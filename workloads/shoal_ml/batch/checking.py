"""Checks of what users give: each returns it in one form, or refuses it by name."""

from __future__ import annotations

import inspect
import numbers
from collections.abc import Sequence
from typing import Any

from shoal.errors import OptionError
from shoal.model.options import is_number
from shoal.model.suggest import did_you_mean
from shoal_ml.batch.batch_formats import BATCH_FORMATS


def check_concurrency(concurrency: int | tuple[int, int] | None) -> tuple[int, int] | None:
    """Return smallest and largest, or refuse what is neither a number nor a pair."""
    if concurrency is None:
        return None
    pair = concurrency if isinstance(concurrency, tuple | list) else (concurrency, concurrency)
    if len(pair) != 2 or not all(is_number(n, numbers.Integral) and n >= 1 for n in pair) or pair[0] > pair[1]:
        raise OptionError(
            f"`concurrency` must be a whole number from 1 up, or the smallest and the largest, not {concurrency!r}.",
            option="concurrency",
        )
    return int(pair[0]), int(pair[1])


def check_whole(name: str, value: Any, least: int) -> int:
    """Return a whole number, or refuse the option."""
    if not (is_number(value, numbers.Integral) and value >= least):
        raise OptionError(f"`{name}` must be a whole number from {least} up, not {value!r}.", option=name)
    return int(value)


def check_choice(name: str, value: str, choices: Sequence[str]) -> str:
    """Return one of several words, or refuse it."""
    if value not in choices:
        told = ", ".join(f'"{choice}"' for choice in choices)
        hint = did_you_mean(str(value), choices)
        raise OptionError(f"`{name}` must be one of {told}, not {value!r}.{hint}", option=name)
    return value


def check_format(batch_format: str) -> str:
    """Return the name of a batch format, or refuse it."""
    return check_choice("batch_format", batch_format, BATCH_FORMATS)


def check_function(method: str, function: Any) -> Any:
    """Refuse what cannot be called with a row or batch."""
    if inspect.isclass(function):
        raise TypeError(f"`{method}` takes a function; for a class that loads once per replica there is `map_batches`.")
    if not callable(function):
        raise TypeError(f"`{method}` takes a function, not {type(function).__name__}.")
    return function


def check_names(columns: str | Sequence[str]) -> tuple[str, ...]:
    """Return names of columns; one may stand for itself."""
    names = (columns,) if isinstance(columns, str) else tuple(columns)
    for name in names:
        if not isinstance(name, str):
            raise TypeError(f"Columns are named by strings, not {name!r}.")
    return names


def check_share(name: str, share: Any) -> float:
    """Return a share between 0 and 1, or refuse it."""
    if not (is_number(share) and 0 < share < 1):
        raise OptionError(f"`{name}` must be a number between 0 and 1, not {share!r}.", option=name)
    return float(share)
