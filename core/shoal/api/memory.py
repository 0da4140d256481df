"""``shoal.memory``: what is in the object stores, and which cell and variable holds it."""

from __future__ import annotations

import dataclasses
import gc
import time

from shoal.api.session import owner_or_init
from shoal.api.values import check_flag, check_timeout
from shoal.model.errors import OptionError
from shoal.model.memory import MemoryReport
from shoal.runtime.memory_reporter import report
from shoal.runtime.variables import get_namespace

#: Seconds that the release of what was forgotten may take.
SETTLE = 2.0
#: Seconds that nobody waits longer for a node.
LONGEST = 86_400.0


def memory(*, limit: int = 20, release: bool = False, timeout: float = 5.0) -> MemoryReport:
    """Report what the object stores hold, and who holds it: cells, variables, outputs, tracebacks, work, processes.

    A value stays as long as somebody has a ref to it, and the memory of a large one as long as somebody uses an array
    or a tensor of it. In a notebook that may be an output that nobody will look at again.

    Parameters
    ----------
    limit
        Values listed: the biggest; the others are counted.
    release
        First let go of what the notebook keeps of its own accord: outputs (``Out``, ``_``, ``_3``) that hold refs or
        such memory, and the tracebacks of the last error with all local variables in them. Variables stay.
    timeout
        Seconds after which a node that gives no answer is left out; more than 0.

    Returns
    -------
    MemoryReport
        Prints as a table; its attributes are for programs. Values of other drivers, and those that tasks and actors
        have stored for themselves, are listed without their makers' names.

    Examples
    --------
    >>> import numpy, shoal
    >>> with shoal.init(num_cpus=1):
    ...     weights = shoal.put(numpy.ones(1_000_000))
    ...     shoal.memory().objects[0].nbytes >= 8_000_000
    True
    """
    check_timeout(timeout)
    check_flag("release", release)
    if not timeout:
        raise OptionError("`timeout` must be more than 0.", option="timeout")
    if isinstance(limit, bool) or not isinstance(limit, int) or limit < 0:
        raise OptionError(f"`limit` is a number of values, 0 or more, not {limit!r}.", option="limit")
    timeout = min(timeout, LONGEST)
    owner = owner_or_init()
    if not release:
        return report(owner, limit, timeout)
    before = _nbytes(report(owner, 0, timeout))
    get_namespace().forget_history()
    gc.collect()
    deadline, last = time.monotonic() + SETTLE, 0
    while True:
        # Refs are dropped, segments freed and nodes' books made up by others, in their time.
        time.sleep(0.05)
        found = report(owner, limit, timeout)
        released = before - _nbytes(found)
        if 0 < released == last or time.monotonic() > deadline:
            return dataclasses.replace(found, released=max(0, released))
        last = released


def _nbytes(found: MemoryReport) -> int:
    return sum(use.nbytes for use in found.objects) + found.more[1]


__all__ = ["MemoryReport", "memory"]
