"""Values and refs: ``put``, ``get``, ``wait``, ``cancel``."""

from __future__ import annotations

import numbers
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from shoal.api.session import owner_or_init
from shoal.model.errors import GetTimeoutError, OptionError
from shoal.model.options import is_number
from shoal.runtime.refs import ObjectRef, set_to_dask
from shoal.runtime.waiting import NotReadyError
from shoal.runtime.yields import ObjectRefGenerator

if TYPE_CHECKING:
    from distributed import Client, Future

#: Refs from which on ``wait`` does not check the whole list before it looks for one that is ready.
LONG = 50


def put(value: Any) -> ObjectRef:
    """Store *value* in the cluster once and return a ref to it.

    Pass the ref to any number of tasks and actors. Values over 100 KiB go to the node's shared memory, from which
    readers on the node map arrays without copying.

    Raises
    ------
    SerializationError
        Some part of it cannot be pickled; the message leads there.
    TypeError
        *value* is a ref already.
    """
    if isinstance(value, ObjectRef):
        raise TypeError("`put` was given an ObjectRef: its value is in the cluster already.")
    return owner_or_init().put(value)


def get(refs: ObjectRef | Sequence[ObjectRef], timeout: float | None = None, *, return_exceptions: bool = False) -> Any:
    """Wait for the value of a ref, or of each of a list of refs, and return it.

    Arrays in a value may share memory with the store; writing to them changes nobody else's copy. The stop button (or
    Ctrl-C) ends the wait; the work goes on unless cancelled.

    Parameters
    ----------
    refs
        One ref, or a sequence of refs: their values come as a list in the same order.
    timeout
        Seconds, 0 or more; None waits without end.
    return_exceptions
        Wait for all, and return errors in the places of their values instead of raising the first.

    Raises
    ------
    Exception
        The task's own exception, of its own type, with the remote traceback; of several, the first to arrive.
    GetTimeoutError
        Not ready within *timeout* seconds.
    ExecutorCrashedError, ActorDiedError, TaskCancelledError, OwnerDiedError, ClusterLostError
        The work ended without a result; see there.
    """
    __tracebackhide__ = True
    check_timeout(timeout)
    check_flag("return_exceptions", return_exceptions)
    single = isinstance(refs, ObjectRef)
    wanted = [refs] if isinstance(refs, ObjectRef) else as_refs(refs)
    if not wanted:
        return []
    try:
        values = wanted[0]._owner.get(wanted, timeout, return_exceptions=return_exceptions)
    except NotReadyError:
        what = f"`{wanted[0].id}`" if single else f"all of {len(wanted)} values"
        raise GetTimeoutError(f"Waited {timeout:g} s for {what}. The work goes on.", timeout=timeout) from None
    return values[0] if single else values


def wait(refs: Sequence[Any], *, num_returns: int = 1, timeout: float | None = None) -> tuple[list[Any], list[Any]]:
    """Wait until some of *refs* are ready.

    Parameters
    ----------
    refs
        Distinct refs; a generator of refs among them is ready when its next value is, or its end.
    num_returns
        How many to wait for, 1 to ``len(refs)``.
    timeout
        Seconds to wait at most; None waits without end. When it passes, fewer may be ready.

    Returns
    -------
    ready, rest
        At most *num_returns* refs that are ready (their tasks may have failed), and all others; both in the order
        given.
    """
    check_timeout(timeout)
    given: list[Any] = [refs] if isinstance(refs, ObjectRef | ObjectRefGenerator) else list(refs)
    if num_returns == 1 and len(given) > LONG and type(given[0]) is ObjectRef:
        # In a loop that takes one after the other, to check all of them each time would make the loop quadratic.
        first = given[0]._owner.find_first(given, timeout)
        if first is not None:
            return [given.pop(first)], given
    # A generator is as ready as its next value.
    wanted = as_refs([item._yields.next_ref if isinstance(item, ObjectRefGenerator) else item for item in given])
    if len(set(wanted)) != len(wanted):
        raise OptionError("`wait` takes each ref once.", option="refs")
    if not (is_number(num_returns, numbers.Integral) and 1 <= num_returns <= max(1, len(wanted))):
        raise OptionError(
            f"`num_returns` must be a whole number from 1 to {len(wanted)}, not {num_returns!r}.", option="num_returns"
        )
    if not wanted:
        return [], []
    rest, ready = given, []
    for position in reversed(wanted[0]._owner.wait(wanted, num_returns, timeout)):
        ready.append(rest.pop(position))
    return ready[::-1], rest


def cancel(ref: ObjectRef | ObjectRefGenerator, *, force: bool = False, recursive: bool = True) -> None:
    """Stop the task or actor call that makes *ref*.

    One that has not begun never will. One that runs is interrupted: by ``KeyboardInterrupt`` in its thread, which code
    that never returns to Python sees late; by ``CancelledError`` in an ``async def`` method. An actor keeps its state.
    ``get`` then raises ``TaskCancelledError``. Harmless if it has ended, and if repeated.

    Parameters
    ----------
    force
        End the executor that runs the task, for code that does not heed the interrupt. Not for actor calls: use
        :func:`kill`.
    recursive
        Stop what the task has submitted as well.

    Raises
    ------
    OptionError
        *force* for a call of an actor.
    """
    check_flag("force", force)
    check_flag("recursive", recursive)
    if isinstance(ref, ObjectRefGenerator):
        ref = ref._yields.next_ref
    if not isinstance(ref, ObjectRef):
        raise TypeError(f"`cancel` takes an ObjectRef, not {type(ref).__name__}.")
    if force and ref._owner.is_actor_call(ref.id):
        raise OptionError("An actor's call cannot be cancelled by force: `shoal.kill` ends the actor.", option="force")
    ref._owner.cancel(ref.id, force=force, recursive=recursive)


def as_refs(refs: Any) -> list[ObjectRef]:
    """Return a list of refs, or refuse what is none."""
    if isinstance(refs, ObjectRefGenerator):
        raise TypeError("Iterate over a generator of refs and get each ref that it gives.")
    wanted: list[Any] = list(refs) if isinstance(refs, Iterable) else [refs]
    for ref in wanted:
        if not isinstance(ref, ObjectRef):
            raise TypeError(f"Expected ObjectRefs, got {type(ref).__name__}. Is a `.remote(…)` missing?")
    return wanted


def check_flag(name: str, value: bool) -> None:
    """Refuse what is neither True nor False."""
    if not isinstance(value, bool):
        raise OptionError(f"`{name}` must be True or False, not {value!r}.", option=name)


def check_timeout(timeout: float | None) -> None:
    """Refuse what is no number of seconds."""
    if timeout is not None and not (is_number(timeout) and timeout >= 0):
        raise OptionError(
            f"`timeout` must be a number of seconds from 0 up, or None, not {timeout!r}.", option="timeout"
        )


def _to_dask(ref: ObjectRef, client: Client | None) -> Future[Any]:
    from shoal.api.dask_interop import to_dask  # imports Dask, which takes a while

    return to_dask(ref, client)


set_to_dask(_to_dask)
