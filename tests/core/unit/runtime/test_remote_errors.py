"""Errors on their way from an executor to the cell that caused them."""

from __future__ import annotations

import pickle
import threading
import traceback
from collections.abc import Callable
from typing import Any

import distributed  # noqa: F401 - executors have it loaded, and it registers reducers of its own for exceptions
import pytest

from shoal.errors import ExecutorCrashedError, RemoteError
from shoal.runtime import remote_errors
from shoal.runtime.refs import ObjectRef


class UserError(Exception):
    """Its arguments are not those that its parent keeps: the usual trap of pickled exceptions."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"{code}: {reason}")
        self.code = code


class Unpicklable(Exception):
    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.lock = threading.Lock()


class RefusesToBeRebuilt(Exception):
    def __reduce__(self) -> Any:
        return fail, ("I am not rebuilt",)


class BreaksElsewhere(Exception):
    """Can be rebuilt where it was raised, and nowhere else."""

    elsewhere = False

    def __reduce__(self) -> Any:
        return rebuild_here, ()


def fail(text: str) -> None:
    raise ValueError(text)


def rebuild_here() -> Exception:
    if BreaksElsewhere.elsewhere:
        raise ImportError("no such module")
    return BreaksElsewhere()


class Silent:
    """Stands where an owner would."""

    def drop_nowait(self, object_id: str) -> None: ...
    def location_of(self, object_id: str) -> None: ...


def caught(function: Callable[..., Any], *args: Any) -> BaseException:
    try:
        function(*args)
    except BaseException as error:
        return error
    pytest.fail("nothing was raised")


def travel(error: BaseException) -> BaseException:
    return remote_errors.load(remote_errors.dump(error))


def frames(error: BaseException) -> list[tuple[str, str, int]]:
    return [(link.filename, link.name, link.lineno or 0) for link in traceback.extract_tb(error.__traceback__)]


def printed(error: BaseException) -> list[str]:
    """Return the lines of a traceback but for the carets: columns do not travel."""
    lines = "".join(traceback.format_exception(error)).splitlines()
    return [line for line in lines if line.strip(" ^~")]


def divide(x: int) -> float:
    return inner(x)


def inner(x: int) -> float:
    return 1 / x


def test_type_message_and_frames_are_kept() -> None:
    error = caught(divide, 0)
    back = travel(error)
    assert type(back) is ZeroDivisionError
    assert str(back) == str(error)
    assert frames(back) == frames(error)
    assert [name for _, name, _ in frames(back)] == ["caught", "divide", "inner"]
    assert back.__traceback__ is not None
    assert back.__traceback__.tb_frame.f_code.co_filename == __file__


def test_an_error_without_traceback_travels_too() -> None:
    back = travel(KeyError("a"))
    assert back.__traceback__ is None and back.args == ("a",)


def test_an_error_that_takes_other_arguments_than_its_parent_survives() -> None:
    back = travel(UserError(404, "not found"))
    assert type(back) is UserError
    assert (str(back), back.code) == ("404: not found", 404)


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError(2, "No such file", "data.csv"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid"),
        SystemExit(3),
        KeyboardInterrupt(),
        StopIteration(7),
        ExecutorCrashedError("it crashed", cause="SIGSEGV", stderr="last words"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_of_all_kinds_keep_what_they_know(error: BaseException) -> None:
    back = travel(error)
    assert type(back) is type(error)
    assert (str(back), back.args) == (str(error), error.args)
    assert vars(back) == vars(error)


def test_errors_defined_in_a_notebook_travel_by_value() -> None:
    namespace: dict[str, Any] = {"__name__": "__main__"}
    exec("class CellError(ValueError):\n    pass", namespace)
    back = travel(namespace["CellError"]("from a cell"))
    assert isinstance(back, ValueError) and type(back).__name__ == "CellError"


def test_notes_are_kept() -> None:
    error = ValueError("bad")
    error.add_note("in train, attempt 2")
    assert travel(error).__notes__ == ["in train, attempt 2"]


def test_groups_keep_their_members() -> None:
    back = travel(ExceptionGroup("several", [ValueError("a"), caught(divide, 0)]))  # type: ignore[list-item]
    assert isinstance(back, ExceptionGroup)
    assert [type(member) for member in back.exceptions] == [ValueError, ZeroDivisionError]


# -- chains ------------------------------------------------------------------------------------------------------


def raise_from() -> None:
    try:
        divide(0)
    except ZeroDivisionError as error:
        raise UserError(1, "wrapped") from error


def raise_while_handling() -> None:
    try:
        divide(0)
    except ZeroDivisionError:
        raise KeyError("a")  # noqa: B904 - an implicit chain is what this is about


def raise_from_none() -> None:
    try:
        divide(0)
    except ZeroDivisionError:
        raise KeyError("a") from None


def test_the_cause_is_kept_with_its_frames() -> None:
    back = travel(caught(raise_from))
    assert isinstance(back.__cause__, ZeroDivisionError)
    assert [name for _, name, _ in frames(back.__cause__)] == ["raise_from", "divide", "inner"]


def test_the_context_is_kept() -> None:
    back = travel(caught(raise_while_handling))
    assert back.__cause__ is None and not back.__suppress_context__
    assert isinstance(back.__context__, ZeroDivisionError)


def test_a_suppressed_context_is_not_shown() -> None:
    assert "ZeroDivisionError" not in "".join(traceback.format_exception(travel(caught(raise_from_none))))


@pytest.mark.parametrize("function", [raise_from, raise_while_handling, raise_from_none])
def test_an_error_prints_as_it_would_have_there(function: Callable[[], None]) -> None:
    error = caught(function)
    assert printed(travel(error)) == printed(error)


def test_a_chain_that_bites_its_tail_is_no_trap() -> None:
    first, second = ValueError("first"), ValueError("second")
    first.__context__, second.__context__ = second, first
    back = travel(first)
    assert str(back) == "first" and str(back.__context__) == "second"


# -- what does not pickle ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("error_type", [Unpicklable, RefusesToBeRebuilt])
def test_an_error_that_cannot_travel_is_replaced_by_what_it_said(error_type: type[Exception]) -> None:
    def work() -> None:
        raise error_type("disk is full")

    back = travel(caught(work))
    assert isinstance(back, RemoteError)
    assert back.type_name == error_type.__qualname__
    assert "disk is full" in back.text and "disk is full" in str(back)
    assert [name for _, name, _ in frames(back)] == ["caught", "work"]


def test_one_bad_link_does_not_spoil_the_chain() -> None:
    def work() -> None:
        try:
            raise Unpicklable("disk is full")
        except Unpicklable as error:
            raise ValueError("no results") from error

    back = travel(caught(work))
    assert type(back) is ValueError and isinstance(back.__cause__, RemoteError)


def test_an_error_that_cannot_be_rebuilt_here_still_arrives(monkeypatch: pytest.MonkeyPatch) -> None:
    def work() -> None:
        raise BreaksElsewhere

    data = remote_errors.dump(caught(work))
    monkeypatch.setattr(BreaksElsewhere, "elsewhere", True)
    back = remote_errors.load(data)
    assert isinstance(back, RemoteError)
    assert "no such module" in str(back)
    assert [name for _, name, _ in frames(back)] == ["caught", "work"]


def test_an_error_may_mention_a_ref() -> None:
    error = ValueError("bad ref", ObjectRef("obj-1", "tls://127.0.0.1:1", Silent()))  # type: ignore[arg-type]
    assert isinstance(travel(error), ValueError | RemoteError)


def test_what_travels_is_one_plain_pickle() -> None:
    assert isinstance(pickle.loads(remote_errors.dump(caught(divide, 0))), list)


# -- own frames --------------------------------------------------------------------------------------------------


def test_own_frames_are_cut_off_up_to_the_last_one() -> None:
    error = caught(divide, 0)
    assert remote_errors.strip_own_frames(error.__traceback__, "other.py") is error.__traceback__
    assert remote_errors.strip_own_frames(None, __file__) is None
    namespace: dict[str, Any] = {"call": divide}
    exec(compile("def user():\n    return call(0)", "<cell>", "exec"), namespace)
    error = caught(namespace["user"])
    stripped = remote_errors.strip_own_frames(error.__traceback__, "<cell>")
    assert [link.name for link in traceback.extract_tb(stripped)] == ["divide", "inner"]


def test_an_error_of_our_own_keeps_its_frames() -> None:
    error = caught(divide, 0)
    assert remote_errors.strip_own_frames(error.__traceback__, __file__) is error.__traceback__
