"""``shoal.memory``: what is in the object stores, and which cell and variable holds it."""

from __future__ import annotations

from shoal.api.session import owner_or_init
from shoal.api.values import check_flag, check_timeout
from shoal.model.errors import OptionError
from shoal.model.memory import MemoryReport
from shoal.runtime import memory_reporter

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
    answer = memory_reporter.release if release else memory_reporter.report
    return answer(owner, limit, timeout)


__all__ = ["MemoryReport", "memory"]
