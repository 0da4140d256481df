"""Ours is not the only ``showtraceback`` that somebody puts into a shell."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from IPython.core.interactiveshell import InteractiveShell

from shoal_kernel.error_display import ErrorDisplay
from shoal_kernel.grouping import CellErrors


@pytest.fixture
def shell() -> Iterator[Any]:
    instance: Any = InteractiveShell(colors="nocolor")
    instance.history_manager.enabled = False
    yield instance
    vars(instance).pop("showtraceback", None)


class Other:
    """Another one's: notes what it gets and shows it as before."""

    def __init__(self, shell: Any) -> None:
        self.errors: list[BaseException] = []
        self._before = shell.showtraceback
        shell.showtraceback = self

    def __call__(self, exc_tuple: Any = None, *args: Any, **kwargs: Any) -> None:
        self.errors.append(exc_tuple[1])
        self._before(exc_tuple, *args, **kwargs)


def show(shell: Any, error: BaseException) -> None:
    try:
        raise error
    except BaseException as raised:
        shell.showtraceback((type(raised), raised, raised.__traceback__))


def test_alone_it_leaves_nothing(shell: Any) -> None:
    display = ErrorDisplay(shell)
    display.start()
    assert "showtraceback" in vars(shell)
    display.stop()
    assert "showtraceback" not in vars(shell)


def test_what_was_there_before_is_called_and_put_back(shell: Any, capsys: pytest.CaptureFixture[str]) -> None:
    other = Other(shell)
    display = ErrorDisplay(shell)
    display.start()
    errors = [ValueError("plain"), CellErrors("2 of 2 parts failed", [ValueError("one"), KeyError("two")])]
    for error in errors:
        show(shell, error)
    assert other.errors == errors
    shown = capsys.readouterr()
    assert all(text in shown.out + shown.err for text in ("plain", "2 of 2 parts failed", "one", "two"))
    display.stop()
    assert vars(shell)["showtraceback"] is other


def test_what_has_come_since_stays(shell: Any, capsys: pytest.CaptureFixture[str]) -> None:
    display = ErrorDisplay(shell)
    display.start()
    other = Other(shell)
    display.stop()
    assert vars(shell)["showtraceback"] is other
    error = ValueError("later")
    show(shell, error)
    assert other.errors == [error]
    assert "later" in capsys.readouterr().out


def test_loaded_once_more_behind_another(shell: Any, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = ErrorDisplay(shell), ErrorDisplay(shell)
    first.start()
    other = Other(shell)
    first.stop()
    second.start()
    show(shell, ValueError("once"))
    assert len(other.errors) == 1
    assert capsys.readouterr().out.count("ValueError: once") == 1
    second.stop()
    assert vars(shell)["showtraceback"] is other
