"""Errors on their way from an executor to the cell that caused them.

The user's own exception travels, with a real traceback: frames as objects that a debugger or IPython can walk and
whose filenames lead to the cell's source. Frames of shoal itself are cut off at the start.
"""

from __future__ import annotations

import io
import itertools
import pickle
import traceback
from collections.abc import Sequence
from types import TracebackType
from typing import NamedTuple

from shoal.model.errors import RemoteError
from shoal.runtime import captured_locals, frames, refs
from shoal.runtime.context import get_current
from shoal.runtime.error_pickling import ErrorPickler
from shoal.runtime.travelled_variables import Values


class _Link(NamedTuple):
    """One error of a chain."""

    pickled: bytes
    frames: list[frames.WireFrame]
    #: What follows is the cause, or nothing; else it is the context.
    by_cause: bool


def dump(error: BaseException) -> bytes:
    """Pickle *error*, its traceback, and what it was raised from; in a task also the variables of the user's frames."""
    errors: list[BaseException] = []
    links: list[_Link] = []
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        errors.append(link)
        follow_cause = link.__cause__ is not None
        by_cause = follow_cause or link.__suppress_context__
        links.append(_Link(_dump_one(link), frames.dump(link.__traceback__), by_cause))
        link = link.__cause__ if follow_cause else None if link.__suppress_context__ else link.__context__
    context = get_current()
    if context is None:  # what is raised elsewhere is raised where it is shown
        return pickle.dumps([links, _NO_VARIABLES, "", _summarize(error)])
    captured = _capture(errors) if context.is_last_attempt else _NO_VARIABLES
    return pickle.dumps([links, captured, context.task_id, _summarize(error)])


#: Characters of a summary at most.
MAX_SUMMARY = 300
_NO_VARIABLES = captured_locals.Captured([], [])


def _capture(errors: Sequence[BaseException]) -> captured_locals.Captured:
    try:
        return captured_locals.capture([error.__traceback__ for error in errors]) or _NO_VARIABLES
    except Exception:  # boundary: no error is lost because of its variables
        return _NO_VARIABLES


def without_variables(data: bytes) -> bytes:
    """Return what :func:`dump` would have made without the variables."""
    links, _, *rest = pickle.loads(data)
    return pickle.dumps([links, _NO_VARIABLES, *rest])


def summary(data: bytes) -> str:
    """Return the type and the first line of an error that :func:`dump` has made, without making it again."""
    text: str = pickle.loads(data)[3]
    return text


def as_text(data: bytes) -> str:
    """Return an error that :func:`dump` has made as Python prints it, with its traceback."""
    return "".join(traceback.format_exception(load(data)))


def _summarize(error: BaseException) -> str:
    try:
        message = str(error)
    except Exception:  # boundary: user code
        message = "(its message cannot be had)"
    name = type(error).__name__
    return f"{name}: {message}".splitlines()[0][:MAX_SUMMARY] if message else name


def load(data: bytes) -> BaseException:
    """Rebuild the error with its traceback and chain."""
    links, (pickled, scopes), task_id, _ = pickle.loads(data)
    values = Values(pickled, task_id)
    errors: list[tuple[BaseException, bool]] = []
    for number, link in enumerate(links):
        variables = scopes[number] if scopes else ()
        error = _load_one(link.pickled)
        errors.append((error.with_traceback(frames.load(link.frames, variables, values)), link.by_cause))
    for (error, by_cause), (following, _) in itertools.pairwise(errors):
        if by_cause:
            error.__cause__ = following
        else:
            error.__context__ = following
    return errors[0][0]


def _load_one(pickled: bytes) -> BaseException:
    try:
        error: BaseException = pickle.loads(pickled)
    except Exception as failure:  # boundary: user classes may refuse to be rebuilt
        return RemoteError(f"An error arrived that cannot be rebuilt here: {failure}", type_name="", text="")
    return error


def strip_own_frames(traceback_: TracebackType | None, own_file: str) -> TracebackType | None:
    """Cut leading frames up to and including the last one of *own_file*."""
    result, link = traceback_, traceback_
    while link is not None:
        if link.tb_frame.f_code.co_filename == own_file:
            result = link.tb_next
        link = link.tb_next
    return result if result is not None else traceback_


def _dump_one(error: BaseException) -> bytes:
    with refs.collecting():  # an error may mention refs; it does not keep their objects alive
        try:
            buffer = io.BytesIO()
            ErrorPickler(buffer).dump(error)
            data = buffer.getvalue()
            pickle.loads(data)  # many exceptions pickle and cannot be rebuilt: find out here
            return data
        except Exception:  # boundary: reducers are user code
            text = "".join(traceback.format_exception_only(error)).strip()
            name = type(error).__qualname__
            stand_in = RemoteError(f"{text} (`{name}` itself cannot be pickled)", type_name=name, text=text)
            return pickle.dumps(stand_in)
