"""Identifiers with a readable prefix, unique without asking anybody.

An id is a string ``<kind>-<origin>-<number>``: *origin* is random and belongs to the process that makes the id,
*number* counts there: an id says in any log what it names, and how old it is among its kin.
"""

from __future__ import annotations

import itertools
import os
import secrets

_origin = secrets.token_hex(5)
_numbers = itertools.count(1)


def random_id(kind: str) -> str:
    """Return an id that no other process makes: 48 random bits after *kind*."""
    return f"{kind}-{secrets.token_hex(6)}"


def next_number() -> str:
    """Return ``<origin>-<number>``, cheap enough for one per task; a forked child gets an origin of its own."""
    return f"{_origin}-{next(_numbers)}"


def new_task_id() -> str:
    return f"task-{_origin}-{next(_numbers)}"


def new_object_id() -> str:
    return f"obj-{_origin}-{next(_numbers)}"


def new_actor_id() -> str:
    return f"actor-{_origin}-{next(_numbers)}"


def new_group_id() -> str:
    return f"group-{_origin}-{next(_numbers)}"


def _renew_origin() -> None:
    global _origin
    _origin = secrets.token_hex(5)


os.register_at_fork(after_in_child=_renew_origin)
