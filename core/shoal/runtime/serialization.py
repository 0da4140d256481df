"""Values to frames and back.

A value becomes a pickle (protocol 5) and the buffers it lent out of band, so that arrays are neither copied into
the pickle nor out of it. Plain pickle goes first because it is several times faster; whatever it cannot name, or
names in ``__main__`` (which is another module on the other side), goes through cloudpickle, which takes code by
value. Where torch is imported, both get reducers for its tensors (see ``torch_pickling``).
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Sequence
from typing import Any

from shoal.model.errors import SerializationError, ShoalError
from shoal.runtime import refs, session, torch_pickling
from shoal.runtime.code_pickling import dumps_by_value
from shoal.runtime.pickle_path import explain

Frame = bytes | bytearray | memoryview


def dumps(value: Any, what: str = "value") -> tuple[list[Frame], list[refs.ObjectRef]]:
    """Serialize *value*.

    Parameters
    ----------
    what
        How to call the value in an error, such as ``argument`` or a variable's name.

    Returns
    -------
    frames, contained
        The pickle followed by its out-of-band buffers, which are views of the value's memory: it must not be
        changed before they have been written or copied. The refs found inside the value, nested ones too.

    Raises
    ------
    SerializationError
        Some part cannot be pickled; its ``path`` leads there.
    """
    with refs.collecting() as contained:
        buffers: list[pickle.PickleBuffer] = []
        try:
            if "torch" in sys.modules:
                head, buffers, _ = torch_pickling.dump(torch_pickling.dump_by_name, value, contained)
            else:
                head = pickle.dumps(value, protocol=5, buffer_callback=buffers.append)
            by_name = b"__main__" in head
        except Exception:  # boundary: whatever pickle cannot do, cloudpickle may
            by_name = True
        if by_name:
            contained.clear()
            head, buffers = _dumps_by_value(value, what, contained)
        return ([head, *[buffer.raw() for buffer in buffers]] if buffers else [head]), contained


def _dumps_by_value(value: Any, what: str, contained: list[refs.ObjectRef]) -> tuple[bytes, list[pickle.PickleBuffer]]:
    try:
        head, buffers, _ = torch_pickling.dump(_dump_by_value, value, contained)
        return head, buffers
    except ShoalError:
        raise
    except Exception as error:  # boundary: reducers are user code and raise anything
        path, reason = explain(value, what)
        raise SerializationError(
            f"`{path}` cannot be sent to the cluster: {reason}. Leave it out, or make it where it is used.",
            path=path,
        ) from error


def _dump_by_value(value: Any, ranges: torch_pickling.Ranges) -> torch_pickling.Pass:
    storages, buffers = torch_pickling.Storages(ranges), list[pickle.PickleBuffer]()
    head = dumps_by_value(value, buffers.append, storages.reducers())
    return head, buffers, storages.spans


def loads(frames: Sequence[Frame]) -> Any:
    """Rebuild a value. Arrays and tensors in it share memory with the buffers.

    Tensors are never read-only: of a read-only buffer they get a copy.
    """
    return pickle.loads(frames[0], buffers=frames[1:])


def total_nbytes(frames: Sequence[Frame]) -> int:
    return sum(frame.nbytes if isinstance(frame, memoryview) else len(frame) for frame in frames)


def dumps_code(target: Any, name: str) -> tuple[bytes, list[refs.ObjectRef]]:
    """Pickle a function or class by the rules of cloudpickle: by name if it can be imported, else by value.

    Where there is a :class:`~shoal.runtime.session.CodeHook`, it wraps the pickle.

    Returns
    -------
    pickled, contained
        The refs are those that it refers to, and those of actors whose handles it refers to.

    Raises
    ------
    SerializationError
        It refers to something that cannot travel.
    """
    try:
        with refs.collecting() as contained:
            pickled = dumps_by_value(target)
    except Exception as error:  # boundary: reducers are user code
        path, reason = explain(target, name)
        raise SerializationError(
            f"`{path}` cannot be sent to the cluster: {reason}. Pass it as an argument, or make it where it is used.",
            path=path,
        ) from error
    hook = session.get_code_hook()
    if hook is not None:
        with refs.collecting() as more:
            pickled = hook.wrap(target, pickled)
        contained += more
    return pickled, contained
