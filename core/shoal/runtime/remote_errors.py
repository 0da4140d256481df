"""Errors on their way from an executor to the cell that caused them.

The user's own exception travels, with a real traceback: frames as objects that a debugger or IPython can walk and
whose filenames lead to the cell's source. Frames of shoal itself are cut off at the start.
"""

from __future__ import annotations

import io
import itertools
import pickle
import traceback
from types import TracebackType

from shoal.model.errors import RemoteError
from shoal.runtime import frames, refs
from shoal.runtime.code_pickling import CodePickler


def dump(error: BaseException) -> bytes:
    """Pickle *error*, its traceback, and what it was raised from."""
    chain: list[tuple[bytes, list[frames.WireFrame], bool]] = []
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        follow_cause = link.__cause__ is not None
        chain.append((_dump_one(link), frames.dump(link.__traceback__), follow_cause or link.__suppress_context__))
        link = link.__cause__ if follow_cause else None if link.__suppress_context__ else link.__context__
    return pickle.dumps(chain)


def load(data: bytes) -> BaseException:
    """Rebuild the error with its traceback and chain."""
    errors: list[tuple[BaseException, bool]] = []
    for pickled, wire, by_cause in pickle.loads(data):
        try:
            error = pickle.loads(pickled)
        except Exception as failure:  # boundary: user classes may refuse to be rebuilt
            error = RemoteError(f"An error arrived that cannot be rebuilt here: {failure}", type_name="", text="")
        errors.append((error.with_traceback(frames.load(wire)), by_cause))
    for (error, by_cause), (following, _) in itertools.pairwise(errors):
        if by_cause:
            error.__cause__ = following
        else:
            error.__context__ = following
    return errors[0][0]


def strip_own_frames(traceback_: TracebackType | None, own_file: str) -> TracebackType | None:
    """Cut leading frames up to and including the last one of *own_file*."""
    result, link = traceback_, traceback_
    while link is not None:
        if link.tb_frame.f_code.co_filename == own_file:
            result = link.tb_next
        link = link.tb_next
    return result if result is not None else traceback_


class _ErrorPickler(CodePickler):
    """Pickles exceptions so that they are rebuilt without a call of ``__init__``.

    Python rebuilds an exception as ``type(*args)``, and ``args`` is what the type passed on to
    ``Exception.__init__``: an ``__init__`` that formats a message formats it twice, one with two parameters fails.
    A class that defines its own ``__reduce__`` knows better and is left alone, as are the built-in ones.
    """

    def reducer_override(self, value: object) -> object:
        if (
            isinstance(value, BaseException)
            and type(value).__module__ != "builtins"
            and type(value).__reduce__ is BaseException.__reduce__
        ):
            return _rebuild, (type(value), value.args, value.__dict__)
        if isinstance(value, BaseException):  # not by the reducers that `distributed` registers for all of them
            return value.__reduce_ex__(pickle.HIGHEST_PROTOCOL)
        return super().reducer_override(value)


def _rebuild(cls: type[BaseException], args: tuple[object, ...], state: dict[str, object]) -> BaseException:
    error = cls.__new__(cls, *args)
    error.args = args
    error.__dict__.update(state)
    return error


def _dump_one(error: BaseException) -> bytes:
    with refs.collecting():  # an error may mention refs; it does not keep their objects alive
        try:
            buffer = io.BytesIO()
            _ErrorPickler(buffer).dump(error)
            data = buffer.getvalue()
            pickle.loads(data)  # many exceptions pickle and cannot be rebuilt: find out here
            return data
        except Exception:  # boundary: reducers are user code
            text = "".join(traceback.format_exception_only(error)).strip()
            name = type(error).__qualname__
            stand_in = RemoteError(f"{text} (`{name}` itself cannot be pickled)", type_name=name, text=text)
            return pickle.dumps(stand_in)
