"""The variables of the frames that an error has passed through, for a debugger on the other side.

They travel with an error of a task, as far as they are small; what is not, does not pickle, or is a ref, travels as a
:class:`~shoal.runtime.stand_ins.StandIn`. Nothing of it may harm the task's process: unless all values are plain data
they are pickled in a forked child (see ``guarded_child``), within a second, and what a process spends on it is limited.

Locals may hold secrets, and travel to whoever gets the error. ``SHOAL_ERROR_LOCALS=0`` in an executor's environment
keeps them there.
"""

from __future__ import annotations

import io
import itertools
import os
import pickle
import sys
import sysconfig
import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from shoal.runtime import refs, torch_pickling
from shoal.runtime.allowance import Allowance
from shoal.runtime.error_pickling import ErrorPickler
from shoal.runtime.guarded_child import PATIENCE, run_guarded
from shoal.runtime.stand_ins import StandIn, kind_of, stand_in, unseen
from shoal.runtime.travelled_variables import EMPTY, Pickled, Scope

#: Bytes of one value, of all values of an error, and how many there may be.
MAX_VALUE, MAX_TOTAL, MAX_VALUES = 64 << 10, 1 << 20, 400
#: Bytes kept back for each value that is still to come, so that there is room to name its type at least.
_NAME = 1 << 10
#: Seconds that one error may take.
MAX_SECONDS = 1.0
#: Bytes that count as much as a second: many errors of a process wait in one driver's memory.
_NBYTES_PER_SECOND = 32 << 20
#: Parts of a value that are looked at to see whether it is plain data.
_MAX_PARTS = 2_000

_ATOMS = frozenset(
    {type(None), type(...), type(NotImplemented), bool, int, float, complex, str, bytes, bytearray, range}
)
#: Packages of ours, whose frames have nothing to say to a user.
_OWN = ("shoal", "shoal_kernel")
_LIBRARIES = tuple({sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")})

_allowance = Allowance(burst=2.0, share=0.05)


class Captured(NamedTuple):
    """What travels: values, and for each traceback the scope of each frame."""

    values: list[Pickled]
    scopes: list[list[Scope]]


def is_on(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether locals travel."""
    return environ.get("SHOAL_ERROR_LOCALS", "1").strip().lower() not in ("0", "false", "no", "off")


def capture(tracebacks: Sequence[types.TracebackType | None]) -> Captured | None:
    """Return the variables of every frame of *tracebacks* that is not ours.

    Of the frames, the user's come first, the innermost before the others: if there is not room for all, it goes to
    them.

    Returns
    -------
    captured
        None if nothing travels: it is turned off, there are no variables, or this process has spent its allowance.
    """
    if not is_on() or not _allowance.is_open():
        return None
    with _allowance.spending() as bill:
        chosen = _choose(tracebacks)
        if not chosen.values:
            return None
        pickled = _pickle_all(chosen.values)
        bill.add(sum(len(part) for parts in pickled for part in parts) / _NBYTES_PER_SECOND)
    return Captured(pickled, chosen.scopes)


class _Chosen(NamedTuple):
    values: list[Any]
    scopes: list[list[Scope]]


def _choose(tracebacks: Sequence[types.TracebackType | None]) -> _Chosen:
    values: list[Any] = []
    indices: dict[int, int] = {}
    scopes = [[EMPTY for _ in _frames(traceback)] for traceback in tracebacks]

    def note(variables: Iterable[tuple[str, Any]]) -> dict[str, int]:
        noted = {}
        for name, value in variables:
            index = indices.setdefault(id(value), len(values))
            if index == len(values):
                if index == MAX_VALUES:
                    del indices[id(value)]
                    break
                values.append(value)
            noted[name] = index
        return noted

    places = [
        (is_library(frame), number, -depth, frame)
        for number, traceback in enumerate(tracebacks)
        for depth, frame in enumerate(_frames(traceback))
        if not is_own(frame)
    ]
    for library, number, height, frame in sorted(places, key=lambda place: place[:3]):
        scopes[number][-height] = Scope(note(_locals(frame)), {} if library else note(_globals(frame)))
    return _Chosen(values, scopes)


def _frames(traceback: types.TracebackType | None) -> Iterator[types.FrameType]:
    while traceback is not None:
        yield traceback.tb_frame
        traceback = traceback.tb_next


def is_own(frame: types.FrameType) -> bool:
    """Whether a frame runs code of shoal itself."""
    module = frame.f_globals.get("__name__")
    return isinstance(module, str) and module.partition(".")[0] in _OWN


def is_library(frame: types.FrameType) -> bool:
    """Whether a frame runs code of Python or of an installed package."""
    return frame.f_code.co_filename.startswith((*_LIBRARIES, "<frozen "))


def _locals(frame: types.FrameType) -> Iterator[tuple[str, Any]]:
    for name, value in list(frame.f_locals.items()):
        # ".0" is what a comprehension goes through; nobody can write that name.
        if name == "__tracebackhide__" or not (name.startswith((".", "__")) or name == "@py_assert0"):
            yield name, value


def _globals(frame: types.FrameType) -> Iterator[tuple[str, Any]]:
    """Yield what the code may have read from its module."""
    names = frame.f_globals
    if frame.f_locals is not names:
        for name in frame.f_code.co_names:
            if name in names and not name.startswith("__"):
                yield name, names[name]


def _pickle_all(values: list[Any]) -> list[Pickled]:
    room = _Room(MAX_TOTAL, len(values))
    if all(map(_is_plain, values)):
        return [room.pickle(value) for value in values]
    pickled: list[Pickled] = []

    def note(answer: bytes | None) -> None:
        if answer is not None:
            parts = pickle.loads(answer)
        else:
            lost = "to look at it took too long, or ended the process that did"
            parts = _dumps(unseen(values[len(pickled)], lost), _NAME)
        room.take(parts)  # it was taken in a child, of which this process and the next child know nothing
        pickled.append(parts)

    run_guarded(values, lambda value: pickle.dumps(room.pickle(value)), MAX_SECONDS, patience=PATIENCE, on_answer=note)
    return pickled


class _Room:
    """The bytes that are left for the values of one error."""

    def __init__(self, nbytes: int, count: int) -> None:
        self._left = nbytes - count * _NAME

    def pickle(self, value: Any) -> Pickled:
        """Pickle a value, or what stands for it; never raises."""
        limit = min(MAX_VALUE, self._left + _NAME)
        try:
            pickled = _dumps(value, limit)
        except BaseException as error:  # boundary: reducers are user code, and may raise anything
            pickled = self._stand_in(value, error, limit)
        self.take(pickled)
        return pickled

    def take(self, pickled: Pickled) -> None:
        """So much has gone to one value."""
        self._left += _NAME - sum(map(len, pickled))

    def _stand_in(self, value: Any, error: BaseException, limit: int) -> Pickled:
        if not isinstance(error, _TooLarge):
            reason = f"it does not pickle ({type(error).__name__[:100]})"
        elif limit < MAX_VALUE:
            reason = "there was no more room"
        else:
            reason = "it is large"
        try:
            return _dumps(stand_in(value, reason), limit)
        except BaseException:  # boundary: so may a `__repr__`; or there is no room for what it says
            return _dumps(unseen(value, reason), _NAME)


class _TooLarge(Exception):
    """A value's pickle is over the limit."""


class _Limited(io.BytesIO):
    """A file that takes no more than so many bytes, so that a large value is given up early."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self._limit = limit

    def write(self, data: Any) -> int:
        if self.tell() + memoryview(data).nbytes > self._limit:
            raise _TooLarge
        return super().write(data)


class _LocalsPickler(ErrorPickler):
    """Leaves refs, and what works by them, as stand-ins: an error keeps no object alive."""

    limit = MAX_VALUE

    def reducer_override(self, value: object) -> object:
        module = type(value).__module__
        if _nbytes(value) > self.limit:
            raise _TooLarge
        if isinstance(value, refs.ObjectRef) or (isinstance(module, str) and module.startswith(_HANDLES)):
            return StandIn, (kind_of(value), repr(value), "an error keeps no object of the cluster alive")
        return super().reducer_override(value)


_HANDLES = ("shoal.api.", "shoal.runtime.yields")


def _dumps(value: Any, limit: int) -> Pickled:
    if _nbytes(value) > limit:
        raise _TooLarge

    def run(value: Any, ranges: torch_pickling.Ranges) -> torch_pickling.Pass:
        storages, buffers = torch_pickling.Storages(ranges), list[pickle.PickleBuffer]()
        reducers = storages.reducers() if "torch" in sys.modules else {}
        with _Limited(limit) as stream:
            _LocalsPickler(stream, 5, buffers.append, reducers).dump(value)
            return stream.getvalue(), buffers, storages.spans

    with refs.collecting() as found:
        head, buffers, _ = torch_pickling.dump(run, value, found)
    raw = [buffer.raw() for buffer in buffers]
    if len(head) + sum(part.nbytes for part in raw) > limit:
        raise _TooLarge
    return (head, *map(bytes, raw))


def _nbytes(value: Any) -> int:
    """Return the bytes of what is known to have many without a look inside, and may be copied before it is written."""
    if type(value) in (str, bytes, bytearray):
        return len(value)
    return int(value.nbytes) if _is_plain_array(value) else 0


def _is_plain(value: Any) -> bool:
    """Whether nothing runs but Python's own code, for a moment only, when *value* is pickled or shown."""
    todo = [value]
    for _ in range(_MAX_PARTS):
        if not todo:
            return True
        part = todo.pop()
        kind: Any = type(part)
        if kind in _ATOMS or _is_plain_array(part) or _is_imported(part):
            continue
        if kind in (list, tuple, set, frozenset):
            todo += itertools.islice(part, _MAX_PARTS + 1)
        elif kind is dict:
            todo += itertools.islice(itertools.chain.from_iterable(part.items()), _MAX_PARTS + 1)
        else:
            return False
    return not todo


def _is_plain_array(value: Any) -> bool:
    numpy = sys.modules.get("numpy")
    return numpy is not None and type(value) is getattr(numpy, "ndarray", None) and not value.dtype.hasobject


def _is_imported(value: Any) -> bool:
    return type(value) is types.ModuleType and sys.modules.get(value.__name__) is value
