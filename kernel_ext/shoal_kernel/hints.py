"""Hints: after a cell that could have been much quicker in another way, one line says which.

A wrong hint is worse than none. So each rule asks for two things: that the habit is there, and that it has cost enough
to be noticed. A cell gets one hint at most and each kind is given once in a session; ``%config Remote.hints = False``
turns them off.
"""

from __future__ import annotations

import ast
import dataclasses
import time
from collections.abc import Callable, Iterator
from html import escape
from typing import TYPE_CHECKING, Any

from shoal.model.amounts import format_nbytes
from shoal.observe.habits import Facts
from shoal.runtime import session
from shoal_kernel.publishing import Publisher

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from shoal.observe.cell_progress import Progress
    from shoal.runtime.base_owner import BaseOwner
    from shoal_kernel.routing import OutputRouter

#: A loop that waits for each call: fewer turns, or less time in all, nobody minds.
MIN_LONE_WAITS, MIN_LONE_SECONDS = 10, 1.0
#: Tasks are small if a call takes less than this on average; sending one costs a few per cent of it.
SMALL_SECONDS = 0.010
#: Of fewer tasks the cost is below what one notices, and at least so much must have been lost in the cell.
MIN_SMALL_TASKS, MIN_LOST_SECONDS = 1_000, 0.5
#: The same argument, sent so often, with so many bytes copied for nothing: some tenths of a second.
MIN_REPEATS, MIN_REPEATED_NBYTES = 4, 200_000_000
#: Pending calls from which on the notebook's own memory is felt: some kilobytes each.
MANY_PENDING = 50_000
#: What goes to disk below this is written faster than one notices.
MIN_SPILLED_NBYTES = 200_000_000
_LOOPS = (ast.For, ast.AsyncFor, ast.While, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


@dataclasses.dataclass(frozen=True)
class Hint:
    """What could be better, and how."""

    kind: str
    text: str


def choose(facts: Facts, progress: Progress | None, source: str, spilled: int) -> Iterator[Hint]:
    """Yield the hints that a cell deserves, the most useful first."""
    if facts.lone_waits >= MIN_LONE_WAITS and facts.lone_seconds >= MIN_LONE_SECONDS and gets_in_loop(source):
        yield Hint(
            "get in a loop",
            f"{facts.lone_waits} calls ran one after the other ({facts.lone_seconds:.1f} s): `get` waits for each "
            "before the next is submitted. Submit all, then `shoal.get(refs)`.",
        )
    for repeat in facts.repeats:
        wasted = (repeat.times - 1) * repeat.nbytes
        if repeat.times >= MIN_REPEATS and wasted >= MIN_REPEATED_NBYTES:
            yield Hint(
                "same argument",
                f"{format_nbytes(repeat.nbytes)} of equal arguments were copied {repeat.times} times for "
                f"`{repeat.function}`. `ref = shoal.put(value)` copies once; pass `ref`.",
            )
    yield from _small_tasks(progress)
    if facts.most_pending >= MANY_PENDING:
        yield Hint(
            "many pending",
            f"{facts.most_pending:,} results were awaited at once, and the notebook keeps track of each. `shoal.map`, "
            "or `shoal.wait` before submitting more, bounds that.",
        )
    if spilled >= MIN_SPILLED_NBYTES:
        yield Hint(
            "spilled",
            f"{format_nbytes(spilled)} went to disk while this cell ran: the object store was full. `%remote memory` "
            "shows what holds it.",
        )


def _small_tasks(progress: Progress | None) -> Iterator[Hint]:
    if progress is None or not progress.functions:
        return
    row = max(progress.functions, key=lambda row: row.finished)
    # Calls of actors are named with their class; there is nothing to be joined.
    if row.finished < MIN_SMALL_TASKS or "." in row.name or row.seconds / row.finished >= SMALL_SECONDS:
        return
    lost = progress.elapsed - progress.seconds / progress.num_lanes
    # Less than half of the time in user code: what is left is mostly the cost of so many tasks.
    if lost >= MIN_LOST_SECONDS and lost >= progress.elapsed / 2:
        yield Hint(
            "small tasks",
            f"{row.finished:,} tasks of `{row.name}` took {row.seconds / row.finished * 1e3:.2g} ms each, less than it "
            "costs to send them. `shoal.map` joins such calls.",
        )


def gets_in_loop(source: str) -> bool:
    """Whether a loop in a cell submits a call and waits for it, turn by turn, for no reason that can be seen.

    A loop that computes what it sends (from the last result, for one) has such a reason.
    """
    try:
        tree = ast.parse(source)
    except SyntaxError:  # the notebook's own syntax
        return False
    return any(_waits_needlessly(loop) for loop in ast.walk(tree) if isinstance(loop, _LOOPS))


def _waits_needlessly(loop: ast.AST) -> bool:
    calls = [node for node in ast.walk(loop) if isinstance(node, ast.Call)]
    submits = [call for call in calls if _called(call) == "remote"]
    if not submits or not any(_called(call) == "get" and _is_one_ref(call) for call in calls):
        return False
    computed = {
        name.id
        for node in ast.walk(loop)
        if isinstance(node, ast.Assign | ast.AugAssign | ast.AnnAssign | ast.NamedExpr | ast.withitem)
        for name in ast.walk(node)
        if isinstance(name, ast.Name) and isinstance(name.ctx, ast.Store)
    }
    sent = {name.id for call in submits for name in ast.walk(call) if isinstance(name, ast.Name)}
    return computed.isdisjoint(sent)


def _called(call: ast.Call) -> str:
    function = call.func
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def _is_one_ref(call: ast.Call) -> bool:
    return bool(call.args) and not isinstance(call.args[0], ast.List | ast.ListComp)


class Hints:
    """Looks at each cell after it has run, in one shell.

    Parameters
    ----------
    router
        Knows the running cell.
    is_on
        Whether hints are wanted, now.
    """

    def __init__(self, shell: InteractiveShell, router: OutputRouter, is_on: Callable[[], bool]) -> None:
        self._shell: Any = shell
        self._publisher = Publisher(shell)
        self._router = router
        self._is_on = is_on
        self._given: set[str] = set()
        self._owner: BaseOwner | None = None
        self._spilled_before = 0
        self._begun = 0.0

    def start(self) -> None:
        self._shell.events.register("pre_run_cell", self._begin)
        self._shell.events.register("post_run_cell", self._end)

    def stop(self) -> None:
        self._shell.events.unregister("pre_run_cell", self._begin)
        self._shell.events.unregister("post_run_cell", self._end)

    def _begin(self, _: object = None) -> None:
        self._begun = time.monotonic()
        self._owner = session.find_owner()
        if self._owner is not None:
            self._owner.habits.take()
            self._spilled_before = _spilled(self._owner)

    def _end(self, result: Any = None) -> None:
        """Give one hint, if there is one to give. A cluster that was started or left meanwhile is not looked at."""
        owner = session.find_owner()
        # What took no time has lost none.
        if owner is None or owner is not self._owner or time.monotonic() - self._begun < MIN_LOST_SECONDS:
            return
        facts, tag = owner.habits.take(), self._router.running_tag()
        if not (self._is_on() and self._is_read()):
            return
        cell = owner.results.cells.find(tag) if tag is not None else None
        source = getattr(getattr(result, "info", None), "raw_cell", None) or ""
        progress = None if cell is None else cell.look()
        for hint in choose(facts, progress, source, _spilled(owner) - self._spilled_before):
            if hint.kind not in self._given:
                self._given.add(hint.kind)
                self._show(hint)
                return

    def _is_read(self) -> bool:
        """Whether somebody reads along: a notebook that is run by a program has the same output each time."""
        request = self._publisher.running_request()
        return not self._publisher.is_kernel or self._router.settings.is_live(request)

    def _show(self, hint: Hint) -> None:
        off = "`%config Remote.hints = False` turns hints off."
        html = f'<div style="opacity: 0.75">💡 {_code(hint.text)} <small>{_code(off)}</small></div>'
        text = f"hint: {hint.text} {off}"
        self._shell.display_pub.publish(data={"text/plain": text, "text/html": html})


def _code(text: str) -> str:
    """Return HTML of a text in which backticks set code apart."""
    parts = escape(text).split("`")
    return "".join(f"<code>{part}</code>" if number % 2 else part for number, part in enumerate(parts))


def _spilled(owner: BaseOwner) -> int:
    """Return the bytes that this machine's store has on disk."""
    if owner.store is None or not owner.store.reachable():
        return 0
    return owner.store.room.usage()[1]
