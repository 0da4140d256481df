"""The line after the magic."""

from __future__ import annotations

import argparse
import re

import pytest
from IPython.core.error import UsageError

from shoal_kernel.options import nbytes, number, seconds, split_options

KNOWN = {"--num-cpus": True, "--name": True, "--inline": False}


@pytest.mark.parametrize(
    ("line", "words", "rest"),
    [
        ("", [], ""),
        ("f(x)", [], "f(x)"),
        ("--num-cpus 2 f('a  b')", ["--num-cpus=2"], "f('a  b')"),
        ("--num-cpus=2 --inline  f(x) - 1 --y", ["--num-cpus=2", "--inline"], "f(x) - 1 --y"),
        ("--name 'two words' x", ["--name=two words"], "x"),
        ("-- -x", [], "-x"),
        ("-x", [], "-x"),
        ("--x2 if a else b", [], None),
        ("--1", [], "--1"),
    ],
)
def test_options_come_first_and_code_keeps_its_quotes(line: str, words: list[str], rest: str | None) -> None:
    if rest is None:
        with pytest.raises(UsageError, match="Unknown option `--x2`"):
            split_options(line, KNOWN)
    else:
        assert split_options(line, KNOWN) == (words, rest)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "--num-cpu 2",
            "Unknown option `--num-cpu`. Did you mean `--num-cpus`? Options are: --inline, --name, --num-cpus.",
        ),
        ("--nonsense", "Unknown option `--nonsense`. Options are"),
        ("--num-cpus", "Option `--num-cpus` needs a value"),
    ],
)
def test_bad_options(line: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        split_options(line, KNOWN)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("0", 0), ("1024", 1024), ("512MB", 512_000_000), ("2GiB", 2**31), ("1.5 k", 1500), ("1tb", 10**12), ("8b", 8)],
)
def test_nbytes(text: str, expected: int) -> None:
    assert nbytes(text) == expected


@pytest.mark.parametrize("text", ["", "x", "-1", "1XB", "1e3e", "GB", "inf"])
def test_bad_nbytes(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=re.escape(f"`{text}` is no number of bytes, such as")):
        nbytes(text)


@pytest.mark.parametrize("text", ["-1", "nan", "inf", "two", ""])
def test_bad_numbers(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=f"`{text}` is no number from 0 up"):
        number(text)
    with pytest.raises(argparse.ArgumentTypeError, match=f"`{text}` is no number of seconds above 0"):
        seconds(text)


def test_zero() -> None:
    assert number("0") == 0
    with pytest.raises(argparse.ArgumentTypeError):
        seconds("0")
