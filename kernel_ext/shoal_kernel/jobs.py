"""Background cells: those of this notebook, and those that others have left in the cluster."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from IPython.core.error import UsageError

import shoal
from shoal.model.suggest import did_you_mean
from shoal.model.tables import Table
from shoal.runtime import session
from shoal_kernel.cell_run import CellRun, Ended, describe_state
from shoal_kernel.hosting import BackgroundStatus
from shoal_kernel.launching import background_ids, background_statuses, find_background

if TYPE_CHECKING:
    from collections.abc import Callable

#: Ended background cells of this notebook that are still listed.
MAX_ENDED = 100


class Jobs:
    """Finds background cells by id, by the beginning of one, or by the cell's name."""

    def __init__(self) -> None:
        self._owner: object = None
        self._runs: dict[str, CellRun] = {}

    def add(self, run: CellRun) -> None:
        self._forget_other_session()
        self._runs[run.id] = run
        ended = [run_id for run_id, known in self._runs.items() if known.is_taken]
        for run_id in ended[:-MAX_ENDED]:
            del self._runs[run_id]

    def ids(self) -> list[str]:
        """Return the ids of all there are: of this notebook, and of others."""
        self._forget_other_session()
        others = background_ids() if shoal.is_initialized() else []
        return [*self._runs, *(run_id for run_id in others if run_id not in self._runs)]

    def find(self, text: str) -> CellRun | None:
        """Return this notebook's background cell that *text* means, if it means one."""
        self._forget_other_session()
        by_name = [run for run in self._runs.values() if run.name == text]
        if by_name:
            return by_name[-1]
        found = [run for run_id, run in self._runs.items() if run_id.removeprefix("cell-").startswith(_short(text))]
        return found[0] if len(found) == 1 and text else None

    def get(self, text: str, take: Callable[[CellRun, Ended], Any]) -> CellRun:
        """Return the background cell that *text* means, attaching to it if another notebook has launched it.

        Raises
        ------
        UsageError
            It means none, or several.
        """
        run = self.find(text)
        if run is not None:
            return run
        ids = self.ids()
        found = [run_id for run_id in ids if _short(text) and run_id.removeprefix("cell-").startswith(_short(text))]
        if len(found) != 1:
            what = "Several background cells begin with" if found else "There is no background cell"
            raise UsageError(f"{what} `{text}`.{did_you_mean(text, ids)} `%remote jobs` lists them.")
        run = find_background(found[0], take)
        self._runs[run.id] = run
        return run

    def table(self) -> Table:
        """Return what `%remote jobs` shows."""
        ids = self.ids()
        own = [run for run in map(self.find, ids) if run is not None]
        rows = [(run.id, run.name, run.state(), _ago(run.started), "this notebook", "") for run in own]
        others = background_statuses(run_id for run_id in ids if run_id not in self._runs)
        for run_id, status in others.items():
            if status is None:
                rows.append((run_id, "", "no answer", "", "another", ""))
                continue
            state = describe_state(status.num_ended, status.num_parts, status.is_cancelled)
            rows.append((run_id, status.name, state, _ago(status.begun_at), "another", _kept(status)))
        note = "" if rows else "no background cells: `%%remote --bg` starts one"
        heads = ("id", "cell", "state", "started", "launched by", "unless asked for")
        return Table("background cells", heads, rows, note)

    def _forget_other_session(self) -> None:
        owner = session.find_owner()
        if owner is not self._owner:
            self._runs.clear()
            self._owner = owner


def _short(text: str) -> str:
    return text.removeprefix("cell-")


def _ago(started: float) -> str:
    return f"{_roughly(max(0.0, time.time() - started))} ago"


def _kept(status: BackgroundStatus) -> str:
    if status.num_ended < status.num_parts:
        return ""
    return "kept" if status.kept_for is None else f"gone in {_roughly(status.kept_for)}"


def _roughly(seconds: float) -> str:
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
