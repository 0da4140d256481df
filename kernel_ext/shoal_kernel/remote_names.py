"""The variables of ``--actor`` cells: which there are, and the actors that keep them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import shoal
from shoal.errors import ActorDiedError, ShoalError
from shoal.runtime import session
from shoal_kernel.launching import find_host

#: Seconds within which an actor that is met for the first time says which names it has.
ANSWER_TIMEOUT = 5.0


class RemoteNames:
    """What this notebook knows of the actors that it runs cells in. An actor ends when nobody holds it any more."""

    def __init__(self) -> None:
        self._owner: object = None
        self._hosts: dict[str, shoal.ActorHandle] = {}
        self._names: dict[str, frozenset[str]] = {}
        #: The names that were there when somebody last knew.
        self._known: dict[str, frozenset[str]] = {}

    def host(self, actor: str, options: Mapping[str, Any], tag: str) -> shoal.ActorHandle:
        """Return the actor of this name; started with *options* if there is none, or it has ended."""
        self._forget_other_session()
        self._names.pop(actor, None)  # the cell that is about to run tells
        found = self._hosts[actor] = find_host(actor, options, tag)
        return found

    def of(self, actor: str | None, timeout: float = ANSWER_TIMEOUT) -> frozenset[str]:
        """Return the names that are there, as far as is known; none for no actor, or a new one."""
        self._forget_other_session()
        if actor is None or not shoal.is_initialized():
            return frozenset()
        try:
            host = shoal.get_actor(actor)
            if self._hosts.get(actor) != host or actor not in self._names:
                self._hosts[actor] = host
                self._names[actor] = frozenset(shoal.get(host.names.remote(), timeout=timeout))
        except (ValueError, ActorDiedError):
            self._hosts.pop(actor, None)
            self._names.pop(actor, None)
        except (ShoalError, AttributeError, TimeoutError):  # it is busy: what was known before still holds
            return self._known.get(actor, frozenset())
        self._known[actor] = self._names.get(actor, frozenset())
        return self._known[actor]

    def learner(self, actor: str | None) -> Callable[[list[str]], None]:
        """Return what is to be called with the names that there are after a cell."""

        def learn(names: list[str]) -> None:
            if actor is not None:
                self._names[actor] = frozenset(names)

        return learn

    def _forget_other_session(self) -> None:
        owner = session.find_owner()
        if owner is not self._owner:
            self._hosts.clear()
            self._names.clear()
            self._known.clear()
            self._owner = owner
