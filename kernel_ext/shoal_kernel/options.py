"""The line after ``%remote``: options first, then (in the line form) an expression or a subcommand."""

from __future__ import annotations

import argparse
import keyword
import math
import re
from collections.abc import Mapping

from IPython.core.error import UsageError

from shoal.model.suggest import did_you_mean

_WORD = re.compile(r"""\s*("[^"]*"|'[^']*'|\S+)""")
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12} | {
    "ki": 2**10,
    "mi": 2**20,
    "gi": 2**30,
    "ti": 2**40,
}
_AMOUNT = re.compile(r"(?P<number>\d+(\.\d*)?)\s*(?P<unit>[kmgt]i?)?b?", re.IGNORECASE)


def split_options(line: str, takes_value: Mapping[str, bool]) -> tuple[list[str], str]:
    """Split *line* into the words of its leading options and the rest, which keeps its quotes.

    Parameters
    ----------
    takes_value
        The options that exist, and whether a value follows. ``--`` ends the options.

    Raises
    ------
    UsageError
        An option that does not exist, or one without its value.
    """
    words: list[str] = []
    rest = line.strip()
    while rest.startswith("-"):
        match = _WORD.match(rest)
        assert match is not None
        option, equals, value = match[1].partition("=")
        following = rest[match.end() :].lstrip()
        if option == "--":
            return words, following
        if option not in takes_value:
            if not option.startswith("--") or not option[2:3].isalpha():
                break  # an expression such as `-x`
            hint, known = did_you_mean(option, takes_value), ", ".join(sorted(takes_value)) or "none"
            raise UsageError(f"Unknown option `{option}`.{hint} Options are: {known}.")
        rest = following
        if not takes_value[option]:
            words.append(match[1])
            continue
        if not equals:
            match = _WORD.match(rest)
            if match is None:
                raise UsageError(f"Option `{option}` needs a value.")
            value, rest = match[1], rest[match.end() :].lstrip()
        words.append(f"{option}={_unquote(value)}")
    return words, rest


def _unquote(word: str) -> str:
    return word[1:-1] if len(word) > 1 and word[0] == word[-1] and word[0] in "\"'" else word


def number(text: str) -> float:
    """A number from 0 up."""
    value = _float(text)
    if value is None or not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"`{text}` is no number from 0 up")
    return value


def nbytes(text: str) -> int:
    """A number of bytes, such as ``512MB`` or ``2GiB``."""
    match = _AMOUNT.fullmatch(text)
    if match is None:
        raise argparse.ArgumentTypeError(f"`{text}` is no number of bytes, such as 512MB or 2GiB")
    return int(float(match["number"]) * _UNITS[(match["unit"] or "").lower()])


def seconds(text: str) -> float:
    """A number of seconds above 0."""
    value = _float(text)
    if value is None or not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"`{text}` is no number of seconds above 0")
    return value


def _float(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def count(text: str) -> int:
    """A whole number from 0 up."""
    if not text.isascii() or not text.isdigit():
        raise argparse.ArgumentTypeError(f"`{text}` is no whole number from 0 up")
    return int(text)


def name(text: str) -> str:
    """The name of a variable."""
    if not text.isidentifier() or keyword.iskeyword(text):
        raise argparse.ArgumentTypeError(f"`{text}` is no name for a variable")
    return text
