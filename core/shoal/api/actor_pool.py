"""``ActorPool``: a few actors that share a stream of work."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from shoal.api.actors import ActorHandle
from shoal.api.values import check_timeout, get, wait
from shoal.model.errors import ActorDiedError, GetTimeoutError, OptionError
from shoal.runtime.refs import ObjectRef

Submit = Callable[[ActorHandle, Any], ObjectRef]


class ActorPool:
    """Gives each piece of work to an actor that is free.

    Work is ``fn(actor, value)``, which calls a method and returns its ref, such as
    ``lambda actor, x: actor.double.remote(x)``. Not thread-safe.

    Parameters
    ----------
    actors
        Handles, at least one, each once.

    Examples
    --------
    >>> import shoal
    >>> @shoal.remote
    ... class Doubler:
    ...     def double(self, x):
    ...         return 2 * x
    >>> with shoal.init(num_cpus=1):
    ...     pool = shoal.ActorPool([Doubler.remote(), Doubler.remote()])
    ...     list(pool.map(lambda actor, x: actor.double.remote(x), range(4)))
    [0, 2, 4, 6]
    """

    def __init__(self, actors: Iterable[ActorHandle]) -> None:
        self._idle: deque[ActorHandle] = deque()
        #: Work given out and not taken back: who does it, and its number.
        self._busy: dict[ObjectRef, tuple[ActorHandle, int]] = {}
        self._by_number: dict[int, ObjectRef] = {}
        #: Of them, those whose actor has ended its work and whose results were not taken.
        self._answered: set[ObjectRef] = set()
        #: Work for which no actor was free.
        self._waiting: deque[tuple[int, Submit, Any]] = deque()
        #: Numbers whose results were taken out of turn.
        self._taken: set[int] = set()
        self._next_number = 0
        self._next_result = 0
        for actor in actors:
            self.push(actor)
        if not self._idle:
            raise OptionError("An actor pool needs at least one actor.", option="actors")

    def submit(self, fn: Submit, value: Any) -> None:
        """Have ``fn(actor, value)`` done as soon as an actor is free."""
        if not callable(fn):
            raise TypeError(f"`submit` takes a function of an actor and a value, not {type(fn).__name__}.")
        self._waiting.append((self._next_number, fn, value))
        self._next_number += 1
        self._give_out()

    def has_next(self) -> bool:
        """Return whether there is a result that was not taken."""
        return bool(self._busy or self._waiting)

    def has_free(self) -> bool:
        """Return whether some actor has nothing to do."""
        return bool(self._idle)

    def get_next(self, timeout: float | None = None) -> Any:
        """Return the next result in the order of submission.

        Raises
        ------
        StopIteration
            There is none to come.
        GetTimeoutError
            It was not ready within *timeout* seconds; it can be asked for again.
        """
        check_timeout(timeout)
        if not self.has_next():
            raise StopIteration("Nothing was submitted that has not been taken.")
        while self._next_result in self._taken:
            self._taken.remove(self._next_result)
            self._next_result += 1
        while self._next_result not in self._by_number:  # it waits for an actor
            if not self._free_one(timeout):
                self._waiting.popleft()
                self._next_result += 1
                raise _nobody_left()
        ref = self._by_number[self._next_result]
        if not wait([ref], timeout=timeout)[0]:
            raise GetTimeoutError(f"Waited {timeout:g} s for the next result.", timeout=timeout)
        self._next_result += 1
        return self._take(ref)

    def get_next_unordered(self, timeout: float | None = None) -> Any:
        """Return whichever result is ready first; raises as :meth:`get_next`."""
        check_timeout(timeout)
        if not self.has_next():
            raise StopIteration("Nothing was submitted that has not been taken.")
        if not self._busy:
            number, *_ = self._waiting.popleft()
            self._taken.add(number)
            raise _nobody_left()
        ready, _ = wait(list(self._busy), timeout=timeout)
        if not ready:
            raise GetTimeoutError(f"Waited {timeout:g} s for a result.", timeout=timeout)
        self._taken.add(self._busy[ready[0]][1])
        return self._take(ready[0])

    def map(self, fn: Submit, values: Iterable[Any]) -> Iterator[Any]:
        """Give the results for *values* in their order; reads no further ahead than there are actors."""
        return self._map(fn, values, self.get_next)

    def map_unordered(self, fn: Submit, values: Iterable[Any]) -> Iterator[Any]:
        """Give the results for *values* as they are ready."""
        return self._map(fn, values, self.get_next_unordered)

    def push(self, actor: ActorHandle) -> None:
        """Add an actor."""
        if not isinstance(actor, ActorHandle):
            raise TypeError(f"An actor pool takes actors' handles, not {type(actor).__name__}.")
        if actor in self._idle or any(actor == self._busy[ref][0] for ref in self._busy.keys() - self._answered):
            raise ValueError(f"`{actor!r}` is in the pool already.")
        self._idle.append(actor)
        self._give_out()

    def pop_idle(self) -> ActorHandle | None:
        """Take an actor that has nothing to do out of the pool; None if there is none."""
        return self._idle.popleft() if self._idle else None

    def _map(self, fn: Submit, values: Iterable[Any], get_one: Callable[[], Any]) -> Iterator[Any]:
        if self.has_next():
            raise RuntimeError("The pool has results that were not taken: take them first.")
        source = iter(values)
        done = False
        while not done or self.has_next():
            while not done and self._idle:
                try:
                    value = next(source)
                except StopIteration:
                    done = True
                else:
                    self.submit(fn, value)
            if self.has_next():
                yield get_one()

    def _give_out(self) -> None:
        while self._waiting and self._idle:
            number, fn, value = self._waiting[0]
            actor = self._idle[0]
            ref = fn(actor, value)
            if not isinstance(ref, ObjectRef):
                self._waiting.popleft()
                raise TypeError(f"The function must return an ObjectRef, not {type(ref).__name__}.")
            self._waiting.popleft()
            self._idle.popleft()
            self._busy[ref] = actor, number
            self._by_number[number] = ref

    def _free_one(self, timeout: float | None) -> bool:
        """Wait for an actor and have it go on with what waits; its result stays to be taken.

        Returns whether there is an actor to wait for.
        """
        running = [ref for ref in self._busy if ref not in self._answered]
        if not running:
            return False
        ready, _ = wait(running, timeout=timeout)
        if not ready:
            raise GetTimeoutError(f"Waited {timeout:g} s for an actor.", timeout=timeout)
        self._has_answered(ready[0])
        return True

    def _has_answered(self, ref: ObjectRef) -> None:
        """An actor has nothing to do: it goes on with what waits, or leaves the pool if it is dead."""
        if ref in self._answered:
            return
        self._answered.add(ref)
        actor, _ = self._busy[ref]
        error = ref._owner.error_of(ref)
        if not (isinstance(error, ActorDiedError) and error.actor_id == actor._actor_id):
            self._idle.append(actor)
        self._give_out()

    def _take(self, ref: ObjectRef) -> Any:
        self._has_answered(ref)
        self._answered.remove(ref)
        _, number = self._busy.pop(ref)
        del self._by_number[number]
        return get(ref)


def _nobody_left() -> ActorDiedError:
    return ActorDiedError(
        "No actor of the pool is alive: this piece of work was not done. `push` adds an actor.", cause="", actor_id=""
    )


__all__ = ["ActorPool"]
