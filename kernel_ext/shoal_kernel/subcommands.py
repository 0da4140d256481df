"""``%remote COMMAND``: what can be asked of the cluster, and of background cells."""

from __future__ import annotations

import dataclasses
from argparse import ArgumentTypeError
from collections.abc import Callable, Container
from typing import TYPE_CHECKING, Any

from IPython.core.error import UsageError

import shoal
from shoal.model.tables import Table
from shoal_kernel import debugging
from shoal_kernel.doctor import diagnose
from shoal_kernel.jobs import Jobs
from shoal_kernel.modules import ModuleSync
from shoal_kernel.options import count, split_options
from shoal_kernel.receiving import Receiver
from shoal_kernel.status import Status

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from shoal_kernel.cell_run import CellRun


#: How ids begin of what has a log, apart from background cells.
ID_PREFIXES = ("task-", "actor-", "exec-", "node-", "obj-")


@dataclasses.dataclass(frozen=True)
class Subcommand:
    """What a word after ``%remote`` does."""

    function: Callable[..., Any]
    #: In one line, for the manual and for completion.
    help: str
    #: What follows it: "" for nothing, ``ID`` for one word, ``[NAME]`` for one that can be left out.
    argument: str = ""
    #: Its options, and whether a value follows.
    options: dict[str, bool] = dataclasses.field(default_factory=dict)


class Subcommands:
    """All of them, for one notebook."""

    def __init__(self, shell: InteractiveShell, jobs: Jobs, modules: ModuleSync) -> None:
        self._shell = shell
        self._jobs = jobs
        self._modules = modules
        self.table: dict[str, Subcommand] = {
            "up": Subcommand(self._up, "join or start a cluster and show its card", options={"--num-cpus": True}),
            "connect": Subcommand(_connect, "join the cluster at an address, or of a name", "ADDRESS"),
            "use": Subcommand(_use, "leave the cluster and join another; without a name: list them", "[NAME]"),
            "scale": Subcommand(_scale, "give the cluster this many nodes", "N", {"--force": False}),
            "down": Subcommand(_down, "leave the cluster; one that was started here ends"),
            "status": Subcommand(_status, "what the cluster is doing"),
            "jobs": Subcommand(jobs.table, "background cells, of this notebook and of others"),
            "attach": Subcommand(self._attach, "show what a background cell has printed; returns its handle", "ID"),
            "cancel": Subcommand(self._cancel, "stop a background cell", "ID", {"--force": False}),
            "why": Subcommand(self._why, "why a background cell, or the ref in a variable, is not ready", "ID"),
            "logs": Subcommand(
                self._logs,
                "what a background cell has printed, or an actor, a task, an executor",
                "ID",
                {"--follow": False, "--tail": True, "--filter": True},
            ),
            "memory": Subcommand(
                _memory,
                "what the object stores hold, and which cell and variable holds it",
                options={"--release": False},
            ),
            "actors": Subcommand(_actors, "the actors of the cluster"),
            "sync": Subcommand(self._sync, "which local modules executors get, and what has changed of them"),
            "doctor": Subcommand(
                self._doctor, "which variables can travel, how, and what stops the others", "[NAME …]"
            ),
            "debug": Subcommand(
                _debug,
                "look into the last remote error; `--rerun` does the work once more, here",
                options={"--rerun": False},
            ),
        }

    @property
    def names(self) -> list[str]:
        return list(self.table)

    def is_meant(self, line: str, variables: Container[str]) -> bool:
        """Whether *line* is a subcommand and not an expression."""
        command, _, following = line.partition(" ")
        following = following.strip()
        if command not in self.table:
            return False
        found = self.table[command]
        if not following or following.startswith("--"):
            return True
        # `status + 1` is an expression, and so is `jobs[0]`.
        return command not in variables and (bool(found.argument) or following.split()[0].isidentifier())

    def run(self, line: str) -> Any:
        """Carry a subcommand out.

        Raises
        ------
        UsageError
            What follows it is not what it takes.
        """
        command, _, following = line.partition(" ")
        found = self.table[command]
        words, rest = split_options(following, found.options)
        if found.argument and found.options and " --" in rest:  # options may stand behind what they are about
            rest, _, behind = rest.partition(" --")
            more, left = split_options(f"--{behind}", found.options)
            words, rest = [*words, *more], f"{rest} {left}".strip()
        if rest and not found.argument:
            raise UsageError(f"`%remote {command}` takes options only; what is `{rest}`?")
        if not rest and found.argument and not found.argument.startswith("["):
            raise UsageError(f"`%remote {command}` needs {found.argument}: {found.help}.")
        options = {}
        for word in words:
            name, equals, value = word.partition("=")
            options[name.removeprefix("--").replace("-", "_")] = value if equals else True
        return found.function(*([rest] if rest else []), **options)

    def _up(self, num_cpus: str | None = None) -> shoal.Cluster:
        return shoal.init(num_cpus=None if num_cpus is None else _count(num_cpus))

    def _job(self, text: str) -> CellRun:
        _need_cluster()
        receiver = Receiver(self._shell)
        return self._jobs.get(text, receiver.take)

    def _attach(self, text: str) -> CellRun:
        run = self._job(text)
        print(run.text(), end="")
        return run

    def _cancel(self, text: str, force: bool = False) -> None:
        run = self._job(text)
        if run.done():
            print(f"`{run.name}` has ended already.")
        else:
            run.cancel(force=force)
            print(f"cancelled `{run.name}`.")

    def _why(self, text: str) -> Any:
        value = self._shell.user_ns.get(text)
        if isinstance(value, shoal.ObjectRef):
            return shoal.why(value)
        run = self._job(text)
        waiting = run.waiting_for()
        return shoal.why(waiting) if waiting is not None else Table("why", (), (), f"`{run.name}` has ended.")

    def _doctor(self, names: str = "") -> Any:
        return diagnose(self._shell.user_ns, names.split() or None)

    def _sync(self) -> Table:
        prepared = self._modules.prepare("pass")
        rows = [(module.name, module.path) for module in prepared.synced.modules]
        note = "; ".join(prepared.said) if prepared.said else "nothing has changed since the last remote cell"
        return Table("local modules", ("module", "file"), rows, note if rows else "no local modules are in use")

    def _logs(self, text: str, follow: bool = False, tail: str | None = None, filter: str = "") -> None:
        num_lines = None if tail is None else _count(tail)
        target = self._shell.user_ns.get(text)
        if not isinstance(target, shoal.ObjectRef | shoal.ActorHandle):
            target = text
            if not text.startswith(ID_PREFIXES):
                try:
                    run = self._job(text)
                except UsageError as no_cell:
                    target = _find_actor(text, no_cell)
                else:
                    _print_cell(run, follow, num_lines, filter)
                    return
        _need_cluster()
        try:
            for line in shoal.logs(target, follow=follow, tail=num_lines, filter=filter):
                print(line, flush=True)
        except shoal.errors.OptionError as error:
            raise UsageError(str(error)) from None


def _find_actor(name: str, no_cell: UsageError) -> str:
    """Return the id of the actor of this name, the one that lives if there was another."""
    rows = [row for row in shoal.snapshot()["actors"] if row["name"] == name]
    if not rows:
        raise UsageError(f"{no_cell} No actor has this name either.") from None
    rows.sort(key=lambda row: row["state"] != "dead")
    return str(rows[-1]["id"])


def _print_cell(run: CellRun, follow: bool, tail: int | None, filter: str) -> None:
    if follow:
        raise UsageError("`--follow` is for actors, tasks and executors: `%remote attach` follows a background cell.")
    lines = run.text().splitlines(keepends=True)
    lines = [line for line in lines if filter.casefold() in line.casefold()]
    print("".join(lines if tail is None else lines[max(0, len(lines) - tail) :]), end="")


def _need_cluster() -> None:
    if not shoal.is_initialized():
        raise UsageError("There is no cluster yet: `%remote up` starts one, and so does the first `%%remote`.")


def _count(text: str) -> int:
    try:
        return count(text)
    except ArgumentTypeError as error:
        raise UsageError(f"{error}.") from None


def _connect(address: str) -> shoal.Cluster:
    return shoal.init(address)


def _use(name: str | None = None) -> Any:
    from shoal.launch.registry import find_by_name, list_clusters

    if name is None:
        rows = [(found.name, found.kind, found.notebook, found.address) for found in list_clusters()]
        note = "" if rows else "no clusters: `%remote up` starts one"
        return Table("clusters", ("name", "kind", "of", "address"), rows, note)
    if "://" not in name and find_by_name(name) is None:
        raise UsageError(f"There is no cluster `{name}`; `%remote use` lists them. This notebook's own stays.")
    shoal.shutdown()
    return shoal.init(name)


def _scale(text: str, force: bool = False) -> shoal.Cluster:
    _need_cluster()
    cluster = shoal.init()
    cluster.scale(_count(text), force=force)
    return cluster


def _down() -> None:
    if not shoal.is_initialized():
        raise UsageError("There is no cluster, so there is nothing to leave.")
    name = shoal.init().name
    shoal.shutdown()
    print(f"left `{name}`.")


def _status() -> Status:
    _need_cluster()
    cluster = shoal.init()
    return Status(cluster.snapshot(), cluster.kind)


def _memory(release: bool = False) -> shoal.MemoryReport:
    if not shoal.is_initialized():
        raise UsageError("There is no cluster yet, so nothing is stored: `%remote up` starts one.")
    if release:
        debugging.release()
    return shoal.memory(release=release)


def _debug(rerun: bool = False) -> Any:
    return debugging.rerun() if rerun else debugging.post_mortem()


def _actors() -> Table:
    _need_cluster()
    actors = shoal.snapshot()["actors"]
    rows = [(actor["name"] or "", actor["class_name"], actor["state"], actor["node"] or "") for actor in actors]
    return Table("actors", ("name", "class", "state", "node"), rows, "" if rows else "no actors")
