"""``%%remote`` and ``%remote``."""

from __future__ import annotations

import dataclasses
import sys
from collections import ChainMap
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from IPython.core import magic_arguments
from IPython.core.error import UsageError
from IPython.core.magic import (
    Magics,
    line_cell_magic,
    magics_class,
    needs_local_scope,
    no_var_expand,
    output_can_be_silenced,
)
from traitlets import Bool, Float, Int, observe

import shoal
from shoal.model.suggest import did_you_mean
from shoal.runtime.variables import Keeper
from shoal_kernel import parts as parts_module
from shoal_kernel import tracebacks
from shoal_kernel.cell import CellSource, CellSpec, execute
from shoal_kernel.cell_run import CellRun, collect
from shoal_kernel.code_sync import CodeSync
from shoal_kernel.handshake import Handshake
from shoal_kernel.jobs import Jobs
from shoal_kernel.launching import Launch, pack_parts
from shoal_kernel.locating import CellWatch
from shoal_kernel.modules import ModuleSync
from shoal_kernel.options import count, name, nbytes, number, seconds, split_options
from shoal_kernel.output_settings import MAX_DISPLAY, MAX_DISPLAYS, OutputSettings
from shoal_kernel.packing import Package
from shoal_kernel.parts import Parts
from shoal_kernel.preparing import prepare
from shoal_kernel.receiving import Receiver
from shoal_kernel.remote_names import RemoteNames
from shoal_kernel.routing import OutputRouter
from shoal_kernel.running import run_to_end
from shoal_kernel.shipping import Shipper, describe
from shoal_kernel.subcommands import Subcommands
from shoal_kernel.targets import places
from shoal_kernel.tasks import RunOptions

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

F = TypeVar("F", bound=Callable[..., Any])


def _documented(function: F) -> F:
    """Make the docstring, and the parser, from the options below."""
    decorate: Callable[[F], F] = magic_arguments.magic_arguments()
    return decorate(function)


def _option(*names: str, **settings: Any) -> Callable[[F], F]:
    decorate: Callable[[F], F] = magic_arguments.argument(*names, **settings)
    return decorate


@magics_class
class Remote(Magics):
    """The magics, and their settings: ``%config Remote``."""

    num_cpus = Float(
        None, allow_none=True, help="CPUs that a remote cell reserves unless `--num-cpus` says otherwise."
    ).tag(config=True)
    timeout = Float(
        None, allow_none=True, help="Seconds after which a remote cell is stopped; None lets it take its time."
    ).tag(config=True)
    inline = Bool(False, help="Run every `%%remote` cell here, as if it had `--inline`.").tag(config=True)
    max_send = Float(
        4e9, help="Bytes of the notebook's variables that one remote cell may read; more is refused, with their sizes."
    ).tag(config=True)

    keep_results = Float(
        259_200,
        min=0,
        help="Seconds for which a background cell that has ended is kept while nobody asks for it and no notebook has "
        "a handle of it; 0 is for ever. It counts for cells launched from then on.",
    ).tag(config=True)
    compare_packages = Bool(
        True, help="Compare the packages that the notebook uses with those of the nodes, once for each."
    ).tag(config=True)
    show_internals = Bool(False, help="Whether tracebacks show shoal's own frames.").tag(config=True)
    hints = Bool(True, help="Say after a cell what would have been much quicker, in one line.").tag(config=True)
    live_output = Bool(
        None,
        allow_none=True,
        help="Whether output of several tasks is drawn as lanes in one block; None leaves it to the front end.",
    ).tag(config=True)
    max_output_lines = Int(
        25_000, min=1, help="Lines of one cell's output that reach the page; the rest is counted."
    ).tag(config=True)
    max_display = Float(
        MAX_DISPLAY, help="Bytes of one display of a cell's remote work; a larger one is not shown, and a line says so."
    ).tag(config=True)
    max_displays = Float(
        MAX_DISPLAYS, help="Bytes of all displays of one cell's remote work; what is more is not shown."
    ).tag(config=True)
    progress_lines = Bool(
        None,
        allow_none=True,
        help="Whether the progress of cells is told in lines where no widget can show it, one for each 10 % of what "
        "takes some seconds; None: in a terminal only.",
    ).tag(config=True)
    sync_modules = Bool(
        True,
        help="Before each remote cell, and before tasks and actors of a cell, give executors the local modules (`.py` "
        "files) that have changed.",
    ).tag(config=True)

    def __init__(self, shell: InteractiveShell, watch: CellWatch, router: OutputRouter) -> None:
        super().__init__(shell)
        self._watch = watch
        self._router = router
        self._shipper = Shipper()
        self.names = RemoteNames()
        self._modules = ModuleSync(shell)
        self.code = CodeSync(shell, self._modules, lambda: bool(self.sync_modules))
        self._handshake = Handshake(shell)
        self.jobs = Jobs()
        self.subcommands = Subcommands(shell, self.jobs, self._modules)
        #: What `shoal.memory` is told of large variables that went to the object store.
        self.keeper = Keeper("large variables of remote cells", self._shipper.refs, self._shipper.forget)

    @observe("show_internals")
    def _internals_changed(self, change: Any) -> None:
        tracebacks.show_internals(change["new"])

    @observe("live_output", "max_output_lines", "max_display", "max_displays", "progress_lines")
    def _output_changed(self, _: Any) -> None:
        self._router.settings = OutputSettings(
            live=self.live_output,
            max_lines=self.max_output_lines,
            max_display=self.max_display,
            max_displays=self.max_displays,
            progress_lines=self.progress_lines,
        )

    @_documented
    @_option("--num-cpus", type=number, metavar="N", help="CPUs to reserve while it runs (default 1).")
    @_option("--num-gpus", type=number, metavar="N", help="GPUs, or a share of one, to reserve while it runs.")
    @_option("--memory", type=nbytes, metavar="BYTES", help="Memory to reserve, such as 512MB or 2GiB.")
    @_option("--on", metavar="WHERE", help="Where: any, all, host:NAME, label:KEY=VALUE, a node's number, 0,2 or 0:4.")
    @_option("--each", action="append", metavar="CLAUSE", help='One run for each value: --each "lr in [0.1, 0.01]".')
    @_option("--ranks", type=count, metavar="N", help="N runs at the same time, with `rank` and `world_size`.")
    @_option("--torch", action="store_true", help="With --ranks: torch's default process group is ready.")
    @_option("--actor", type=name, metavar="NAME", help="Run it where NAME keeps its variables between cells.")
    @_option("--bg", action="store_true", help="Return a handle at once and let it run.")
    @_option("-o", "--out", type=name, metavar="NAME", help="Put its value (with --bg: the handle) into NAME.")
    @_option("--keep", type=name, metavar="NAME", help="Leave its value in the cluster; NAME stands for it.")
    @_option("--name", metavar="NAME", help="What panels and errors call it (default: the cell, `In[3]`).")
    @_option("--timeout", type=seconds, metavar="SECONDS", help="Stop it if it takes longer.")
    @_option("--retries", type=count, metavar="N", help="Run it again if it fails, N times at most (default 0).")
    @_option("--inline", action="store_true", help="Run it here, in the notebook's process: for debugging.")
    @no_var_expand
    @needs_local_scope
    @output_can_be_silenced
    @line_cell_magic
    def remote(self, line: str, cell: str | None = None, local_ns: dict[str, Any] | None = None) -> Any:
        """Run a cell, or an expression, on the cluster.

        ::

            %%remote [options]        the cell below runs on the cluster
            %remote [options] EXPR    the expression does, and its value comes back
            %remote up                join or start a cluster and show its card
            %remote connect ADDRESS   join the cluster at an address, or of a name
            %remote use [NAME]        leave the cluster and join another; without a name: list them
            %remote scale N           give the cluster this many nodes; --force ends what is on those that go
            %remote down              leave the cluster; one that was started here ends
            %remote status            what the cluster is doing
            %remote jobs              background cells, of this notebook and of others
            %remote attach ID         show what a background cell has printed; returns its handle
            %remote cancel ID         stop a background cell; with --force end its processes
            %remote why ID            why a background cell, or the ref in a variable, is not ready
            %remote logs ID           what a background cell has printed, or an actor (its name), a task, an
                                      executor (ids); --follow, --tail N, --filter TEXT
            %remote memory            what the object stores hold, and which cell and variable holds it;
                                      with --release outputs and the last error's traceback let go first
            %remote actors            the actors of the cluster
            %remote sync              which local modules executors get, and what has changed of them
            %remote doctor [NAME …]   which variables can travel, how, and what stops the others
            %remote debug             look into the last remote error; --rerun does the work once more, here

        Names the cell reads are sent, names it assigns come back, its last expression is shown as if it
        had run here, and what it prints appears under it at once. Without a cluster, one is started.

        Values that travel are copies. `x = …`, `x += …`, `x[i] = …` and `x.a = …` in the cell bring `x`
        back; what only a call changes, such as `xs.append(1)`, changes the copy: write `xs = [*xs, 1]`.
        `del x` deletes the copy. Functions and classes that the cell defines can be used here afterwards.
        A cell that fails brings nothing back. The stop button stops the cell on the cluster.

        With `--each`, `--ranks` or `--on all` the cell runs several times and its value is all values
        together: by the value it ran for, by rank, or by node. Names come back from rank 0 only.
        With `--actor` names stay in the actor, where the next such cell finds them.
        """
        if cell is None:
            return self._line(line, local_ns)
        words, rest = split_options(line, _takes_value())
        if rest:
            raise UsageError(f"`%%remote` takes options only; what is `{rest}`? Code starts on the next line.")
        return self._run(self._watch.locate(cell), words, None)

    def _line(self, line: str, local_ns: dict[str, Any] | None) -> Any:
        words, rest = split_options(line, _takes_value())
        shell = self._the_shell
        scope = None if local_ns is shell.user_ns else local_ns
        # No copy: `%remote memory --release` lets go of what is in there.
        known = ChainMap(scope or {}, shell.user_ns)
        if not words and self.subcommands.is_meant(rest, known):
            return self.subcommands.run(rest)
        if not rest:
            raise UsageError(f"`%remote` needs an expression or one of: {', '.join(self.subcommands.names)}.")
        meant = did_you_mean(rest, self.subcommands.names)
        if rest.isidentifier() and rest not in known and meant:
            raise UsageError(f"Unknown subcommand `{rest}`.{meant}")
        return self._run(self._watch.locate_line(rest), words, scope)

    @property
    def _the_shell(self) -> InteractiveShell:
        assert self.shell is not None
        return self.shell

    def _run(self, source: CellSource, words: list[str], scope: dict[str, Any] | None) -> Any:
        shell = self._the_shell
        arguments = parser().parse_args(words)
        _check_together(arguments)
        variables = shell.user_ns if scope is None else {**shell.user_ns, **scope}
        parts = _parts(arguments, variables)
        there = parts.names | self.names.of(arguments.actor)
        flags: int = shell.compile.flags
        spec, package = prepare(source, self._watch.label(source), shell.user_ns, scope, flags, there)
        source.remember()
        if arguments.inline or self.inline:
            return _put(_run_here(source, spec, parts, variables), arguments.out, shell)
        modules = self._modules.prepare(source.code) if self.sync_modules else None
        self._ensure_cluster()
        if self.compare_packages:
            self._handshake.check(shell.user_ns)
        if arguments.keep is not None and not spec.wants_value:
            raise UsageError("`--keep` needs a value: let the cell end with an expression, without `;`.")
        if arguments.on is not None:
            parts = parts_module.on_places(places(arguments.on, shoal.nodes()))
            if arguments.actor is not None and parts.kind != "one":
                raise UsageError(f"`--actor {arguments.actor}` is in one place; `--on {arguments.on}` names several.")
        spec = dataclasses.replace(
            spec,
            modules=modules.synced if modules is not None else None,
            sources=self._modules.sources_ref(modules) if modules is not None and modules.sources else None,
            keeps_value=arguments.keep is not None,
            stays=arguments.keep or "",
            brings_names=arguments.actor is None and parts.kind != "dict",
            displays=self._router.settings.displays,
        )
        for line in modules.said if modules is not None else ():
            print(f"shoal: {line}")
        run = self._launch(arguments, spec, package, parts)
        if arguments.bg:
            self.jobs.add(run)
            return _put(run, arguments.out, shell)
        value = run_to_end(run, self.timeout if arguments.timeout is None else arguments.timeout)
        return _put(value, arguments.out, shell)

    def _launch(self, arguments: Any, spec: CellSpec, package: Package, parts: Parts) -> CellRun:
        shell = self._the_shell
        shipment = self._shipper.ship(package, self.max_send, pack_parts(parts, shell.user_ns))
        if shipment.news:
            print(describe(shipment.news))
        name = arguments.name or self._watch.number()
        labels = [part.label for part in parts.parts]
        # A background cell's end may never be waited for: its lanes would stay open.
        lanes = self._router.open_lanes(labels) if len(labels) > 1 and not arguments.bg else None
        options = RunOptions(
            tag=self._router.open_cell(name) if lanes is None else lanes.tag,
            name=name,
            num_cpus=self.num_cpus if arguments.num_cpus is None else arguments.num_cpus,
            num_gpus=arguments.num_gpus,
            memory=arguments.memory,
            timeout=self.timeout if arguments.timeout is None else arguments.timeout,
            retries=arguments.retries or 0,
            torch=arguments.torch,
        )
        receiver = Receiver(shell, arguments.keep, self.names.learner(arguments.actor))
        close = lanes.close if lanes is not None else lambda: None
        launch = Launch(spec, shipment, parts, options, receiver.take, close)
        try:
            if arguments.actor is None:
                return launch.start_in_background(self.keep_results) if arguments.bg else launch.start()
            place = parts.parts[0].options if arguments.on is not None else {}
            host = self.names.host(arguments.actor, {**options.reserved(), **place}, options.tag)
            return launch.call(host, background=arguments.bg)
        except BaseException:
            close()
            raise

    def _ensure_cluster(self) -> None:
        if not shoal.is_initialized():
            shoal.init()
            print("shoal: started a cluster; `%remote status` shows it, `shoal.shutdown()` ends it.")


def parser() -> Any:
    """The parser that IPython has hung on the magic."""
    magic: Any = vars(Remote)["remote"]
    return magic.parser


def _takes_value() -> dict[str, bool]:
    """Which options there are, and whether a value follows each."""
    return {
        option: action.nargs != 0
        for action in parser()._actions
        for option in action.option_strings
        if option not in ("-h", "--help")
    }


#: Options that each say how often or where a cell runs.
_WAYS = ("on", "each", "ranks", "actor")


def _check_together(arguments: Any) -> None:
    """Refuse options that cannot go together."""
    ways = [f"`--{way}`" for way in _WAYS if getattr(arguments, way) is not None]
    if len(ways) > 1 and ways != ["`--on`", "`--actor`"]:
        raise UsageError(f"Choose one of {' and '.join(ways)}: each says how often, or where, the cell runs.")
    elsewhere = [f"`--{name}`" for name in ("bg", "keep", "actor", "on") if getattr(arguments, name)]
    if arguments.inline and elsewhere:
        raise UsageError(f"`--inline` runs the cell here; {' and '.join(elsewhere)} cannot go with it.")
    if arguments.bg and arguments.keep is not None:
        raise UsageError("`--keep` is not for `--bg`: the value would go with the background cell.")
    if arguments.torch and arguments.ranks is None:
        raise UsageError("`--torch` makes a process group of `--ranks N`.")
    if arguments.ranks == 0:
        raise UsageError("`--ranks` needs 1 or more.")
    if arguments.keep is not None and arguments.out is not None and not arguments.bg:
        raise UsageError("Choose one: `-o NAME` brings the value here, `--keep NAME` leaves it in the cluster.")
    if arguments.ranks is not None and arguments.retries:
        raise UsageError("`--retries` is not for `--ranks`: a rank that ran again would find the others gone.")
    if arguments.actor is not None and arguments.retries:
        raise UsageError("`--retries` is not for `--actor`: what a first run has changed there would stay changed.")


def _parts(arguments: Any, variables: dict[str, Any]) -> Parts:
    if arguments.each is not None:
        return parts_module.for_each(arguments.each, variables)
    return parts_module.only() if arguments.ranks is None else parts_module.ranks(arguments.ranks)


def _run_here(source: CellSource, spec: CellSpec, parts: Parts, variables: dict[str, Any]) -> Any:
    """Run every part in the notebook's process, one after the other."""
    if parts.kind == "list" and len(parts.parts) > 1:
        raise UsageError("`--inline` has one process: ranks run one after the other there and would wait for ever.")
    values = [
        execute(source, spec.flags, {**variables, **part.variables} if part.variables else variables)
        for part in parts.parts
    ]
    return collect(parts.kind, [part.key for part in parts.parts], values)


def _put(value: Any, name: str | None, shell: InteractiveShell) -> Any:
    """Put a value under its name, or return it to be shown."""
    if name is None:
        _let_figures_show(value, shell)
        return value
    shell.user_ns[name] = value
    return None


def _let_figures_show(value: Any, shell: InteractiveShell) -> None:
    """A notebook that has not plotted yet does not know how to show a figure."""
    figure = getattr(sys.modules.get("matplotlib.figure"), "Figure", None)
    if figure is None or not isinstance(value, figure) or shell.display_formatter is None:
        return
    formatter = shell.display_formatter.formatters["image/png"]
    if not formatter.enabled or figure not in formatter.type_printers:
        from IPython.core.pylabtools import select_figure_formats

        select_figure_formats(shell, {"png"}, bbox_inches="tight")
