"""``shoal.stack`` and ``shoal.profile``: where the threads of executors are, and where their time goes."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from shoal.api.executors import Target, find_target
from shoal.api.looking import look
from shoal.model.errors import ClusterLostError, NotInitializedError, OptionError, ShoalError
from shoal.model.options import is_number
from shoal.observe.flame_graph import to_html
from shoal.observe.profiles import MAX_RATE, MAX_SECONDS, FunctionRow, Samples, functions_of, to_speedscope

#: Seconds that a node may take for the stacks of one executor, and beyond those of a profile.
STACK_SECONDS, GRACE = 15.0, 15.0
#: Functions that a profile's text names.
TOP = 15


class Stacks(str):
    """Text; a notebook shows it as it is."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def stack(target: Any = None) -> Stacks:
    """Return the stacks of every Python thread of an executor, as text; your own code's frames are marked with ``>``.

    Nothing is stopped for it. A process that is busy in Python answers by itself. One that is stuck in C code cannot;
    it is looked into by py-spy, if that is installed on its node and allowed there (``pip install shoal[profile]``), or
    else describes itself from within a signal's handler (Linux).

    Parameters
    ----------
    target
        A ref of work that runs, an actor's handle or name, a :class:`~shoal.Node`, or the id of a task, an actor, an
        executor or a node. None means every executor of the cluster.

    Raises
    ------
    OptionError
        Nothing of it runs in an executor now.
    TypeError
        *target* is something else.

    Examples
    --------
    >>> import shoal
    >>> with shoal.init(num_cpus=1):
    ...     ref = shoal.remote(lambda: 1).remote()
    ...     shoal.get(ref)
    ...     shoal.stack().startswith("executor exec-")
    1
    True
    """
    found = find_target("stack", target)
    rows = found.rows()
    if not rows and found.kind in ("executor", "actor", "task"):
        raise OptionError(_nothing_runs(found), option="target")
    texts = []
    for node_id, row in rows:
        try:
            text = look(found.owner, "stack", row.id, target=node_id, timeout=STACK_SECONDS)
        except (ClusterLostError, NotInitializedError):
            raise
        except (ShoalError, TimeoutError) as error:
            text = f"executor {row.id}, process {row.pid}\n\nIts stacks cannot be shown: {error}"
        texts.append(f"{text}\non node {node_id}" if len(rows) > 1 else text)
    return Stacks("\n\n\n".join(texts) or f"No executor runs on {found.label}.")


def profile(target: Any, seconds: float = 5.0, rate: float = 100.0) -> Profile:
    """Profile an executor's Python code for some seconds, and return where its processor time went.

    A sampling profile: the stacks are looked at *rate* times a second, by py-spy if it is installed on the node and
    allowed there (``pip install shoal[profile]``), otherwise by a thread of the process itself, which costs it 5 % of
    its time at most. Threads that wait do not count; :func:`shoal.stack` shows what for. Nothing is stopped.

    Parameters
    ----------
    target
        A ref of work that runs, an actor's handle or name, or the id of a task, an actor or an executor.
    seconds
        More than 0, up to 60. The call returns after that.
    rate
        Samples a second, 1 to 1000.

    Raises
    ------
    OptionError
        Nothing of it runs in an executor now, or in several.
    ShoalError
        The process gave no profile, for a reason that is told.

    Examples
    --------
    >>> import shoal
    >>> def spin():
    ...     return sum(x % 7 for x in range(30_000_000))
    >>> with shoal.init(num_cpus=1):
    ...     work = shoal.remote(spin).remote()
    ...     shoal.wait([work], timeout=1.0)[0]
    ...     shoal.profile(work, seconds=0.5).samples.seconds > 0
    []
    True
    """
    for name, value, least, most in (("seconds", seconds, 0.0, MAX_SECONDS), ("rate", rate, 0.999, MAX_RATE)):
        if not is_number(value) or not least < value <= most:
            words = f"more than 0 and up to {most:g}" if name == "seconds" else f"1 to {most:g}"
            raise OptionError(f"`{name}` is a number, {words}, not {value!r}.", option=name)
    found = find_target("profile", target)
    rows = found.rows()
    if not rows:
        raise OptionError(_nothing_runs(found), option="target")
    if len(rows) > 1:
        ids = ", ".join(f"`{row.id}`" for _, row in rows[:10])
        raise OptionError(f"{len(rows)} executors run for {found.label}; name one of them: {ids}.", option="target")
    ((node_id, row),) = rows
    answer = look(found.owner, "profile", row.id, float(seconds), float(rate), target=node_id, timeout=seconds + GRACE)
    return Profile(Samples.from_wire(answer), f"{found.label}, executor {row.id}")


def _nothing_runs(target: Target) -> str:
    return (
        f"Nothing of {target.label} runs in an executor now; `shoal.logs` shows what it has printed, and `shoal.why` "
        "what a ref or an actor waits for."
    )


class Profile:
    """Where an executor's processor time went; a notebook shows it as a flame graph, and text as a table.

    Attributes
    ----------
    samples
        What was seen.
    title
        Of which process it is.
    """

    def __init__(self, samples: Samples, title: str) -> None:
        self.samples = samples
        self.title = title

    @property
    def html(self) -> str:
        """The flame graph and the table as HTML, without scripts or outside resources."""
        return to_html(self.samples, self._headline())

    def top(self, limit: int = TOP) -> list[FunctionRow]:
        """Return the functions in which most time was spent, in the functions themselves."""
        return functions_of(self.samples)[:limit]

    def speedscope(self, path: str | os.PathLike[str]) -> Path:
        """Write a file that https://www.speedscope.app (and editors) can show; returns its path."""
        target = Path(path)
        target.write_text(json.dumps(to_speedscope(self.samples, self.title)))
        return target

    def _headline(self) -> str:
        found = self.samples
        busy = found.busy * found.seconds / found.looks if found.looks else 0.0
        return (
            f"profile of {self.title}: {busy:.2f} s of processor time in {found.seconds:.1f} s "
            f"({found.looks} looks by {found.how})"
        )

    def __repr__(self) -> str:
        rows = self.top()
        if not rows:
            return f"{self._headline()}\nno thread was at work: `shoal.stack` shows what they wait for"
        lines = [self._headline(), f"{'own':>8} {'total':>8}  function"]
        for row in rows:
            where = f"{row.file}:{row.line}" if row.file else ""
            lines.append(f"{row.own:6.2f} s {row.total:6.2f} s  {row.function}  {where}".rstrip())
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        return self.html


__all__ = ["Profile", "Stacks", "profile", "stack"]
