"""What user code forks is no executor: it can only run to the end of the user's code, and has to leave there.

A forked child has the main thread's stack, and so would go on as the executor that it is a copy of: it would answer for
the task, or wait for ever for work that never comes, with its parent waiting for it. Children of ``multiprocessing``
leave by themselves.
"""

from __future__ import annotations

import os
import sys
import traceback

from shoal.runtime import session

_NO_OWNER = (
    "This process was forked by a task or an actor, and has no part in its cluster. Use shoal in the task or actor "
    "itself, or join a cluster here: `shoal.init(address)`."
)
_is_forked = False


def watch() -> None:
    """Notice from now on if this process is a child that an executor's user code has forked."""
    os.register_at_fork(after_in_child=_at_fork)


def _at_fork() -> None:
    global _is_forked
    _is_forked = True
    session.bar(_NO_OWNER)  # the event loop and the connections are the parent's
    # Nobody sends on what it prints as a task's: it goes to the executor's log, as a subprocess's does.
    sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__


def leave_if_forked(error: BaseException | None = None) -> None:
    """End a forked child whose user code has ended, with *error* or without, as the end of a script would."""
    if not _is_forked:
        return
    status = 0
    if isinstance(error, SystemExit):
        if isinstance(error.code, int | None):
            status = error.code or 0
        else:
            print(error.code, file=sys.stderr)
            status = 1
    elif error is not None:
        traceback.print_exception(error)
        status = 1
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
    os._exit(status & 0xFF)
