"""``%%remote`` and ``%remote``."""

from __future__ import annotations

import sys
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
from traitlets import Bool, Float

import shoal
from shoal.model.suggest import did_you_mean
from shoal_kernel.cell import CellSource, execute
from shoal_kernel.locating import CellWatch
from shoal_kernel.options import nbytes, number, seconds, split_options
from shoal_kernel.preparing import prepare
from shoal_kernel.routing import OutputRouter
from shoal_kernel.running import RunOptions, bring_back, run_remotely

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

F = TypeVar("F", bound=Callable[..., Any])
_TAKES_VALUE = {"--num-cpus": True, "--memory": True, "--name": True, "--timeout": True, "--inline": False}


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

    def __init__(self, shell: InteractiveShell, watch: CellWatch, router: OutputRouter) -> None:
        super().__init__(shell)
        self._watch = watch
        self._router = router

    @_documented
    @_option("--num-cpus", type=number, metavar="N", help="CPUs to reserve while it runs (default 1).")
    @_option("--memory", type=nbytes, metavar="BYTES", help="Memory to reserve, such as 512MB or 2GiB.")
    @_option("--name", metavar="NAME", help="What panels and errors call it (default: the cell, `In[3]`).")
    @_option("--timeout", type=seconds, metavar="SECONDS", help="Stop it if it takes longer.")
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
            %remote status            what the cluster is doing
            %remote up                join or start a cluster and show its card
            %remote memory            what the object stores hold, and which cell and variable holds it;
                                      with --release outputs and the last error's traceback let go first

        Names the cell reads are sent, names it assigns come back, its last expression is shown as if it
        had run here, and what it prints appears under it at once. Without a cluster, one is started.

        Values that travel are copies. `x = …`, `x += …`, `x[i] = …` and `x.a = …` in the cell bring `x`
        back; what only a call changes, such as `xs.append(1)`, changes the copy: write `xs = [*xs, 1]`.
        `del x` deletes the copy. Functions and classes that the cell defines can be used here afterwards.
        A cell that fails brings nothing back. The stop button stops the cell on the cluster.
        """
        if cell is None:
            return self._line(line, local_ns)
        words, rest = split_options(line, _TAKES_VALUE)
        if rest:
            raise UsageError(f"`%%remote` takes options only; what is `{rest}`? Code starts on the next line.")
        return self._run(self._watch.locate(cell), words, None)

    def _line(self, line: str, local_ns: dict[str, Any] | None) -> Any:
        words, rest = split_options(line, _TAKES_VALUE)
        command, _, following = rest.partition(" ")
        if command in _SUBCOMMANDS and not words and (not following or following.lstrip().startswith("--")):
            return _run_subcommand(command, following)
        shell = self._the_shell
        if not rest:
            raise UsageError(f"`%remote` needs an expression or one of: {', '.join(_SUBCOMMANDS)}.")
        scope = None if local_ns is shell.user_ns else local_ns
        known = {**shell.user_ns, **(scope or {})}
        meant = did_you_mean(rest, _SUBCOMMANDS)
        if rest.isidentifier() and rest not in known and meant:
            raise UsageError(f"Unknown subcommand `{rest}`.{meant}")
        return self._run(self._watch.locate_line(rest), words, scope)

    @property
    def _the_shell(self) -> InteractiveShell:
        assert self.shell is not None
        return self.shell

    def _run(self, source: CellSource, words: list[str], scope: dict[str, Any] | None) -> Any:
        shell = self._the_shell
        arguments = _parser().parse_args(words)
        flags: int = shell.compile.flags
        spec, package = prepare(source, self._watch.label(source), shell.user_ns, scope, flags)
        source.remember()
        if arguments.inline or self.inline:
            return execute(source, spec.flags, shell.user_ns if scope is None else {**shell.user_ns, **scope})
        name = arguments.name or self._watch.number()
        if not shoal.is_initialized():
            shoal.init()
            print("shoal: started a cluster; `%remote status` shows it, `shoal.shutdown()` ends it.")
        options = RunOptions(
            tag=self._router.open_cell(name),
            name=name,
            num_cpus=self.num_cpus if arguments.num_cpus is None else arguments.num_cpus,
            memory=arguments.memory,
            timeout=self.timeout if arguments.timeout is None else arguments.timeout,
        )
        result = run_remotely(spec, package, options, shell)
        value = bring_back(result, shell.user_ns)
        if result.shown is not None:
            shell.display_pub.publish(data=result.shown[0], metadata=result.shown[1])
        _let_figures_show(value, shell)
        return value


def _parser() -> Any:
    """The parser that IPython has hung on the magic."""
    magic: Any = vars(Remote)["remote"]
    return magic.parser


def _status() -> Any:
    from shoal_kernel.status import Status

    if not shoal.is_initialized():
        raise UsageError("There is no cluster yet: `%remote up` starts one, and so does the first `%%remote`.")
    cluster = shoal.init()
    return Status(cluster.snapshot(), cluster.kind)


def _memory(release: bool = False) -> Any:
    if not shoal.is_initialized():
        raise UsageError("There is no cluster yet, so nothing is stored: `%remote up` starts one.")
    return shoal.memory(release=release)


#: What each does, and its flags: keyword arguments of it.
_SUBCOMMANDS: dict[str, tuple[Callable[..., Any], tuple[str, ...]]] = {
    "status": (_status, ()),
    "up": (shoal.init, ()),
    "memory": (_memory, ("release",)),
}


def _run_subcommand(command: str, line: str) -> Any:
    function, flags = _SUBCOMMANDS[command]
    words, rest = split_options(line, {f"--{flag}": False for flag in flags})
    if rest:
        raise UsageError(f"`%remote {command}` takes options only; what is `{rest}`?")
    return function(**{word.removeprefix("--"): True for word in words})


def _let_figures_show(value: Any, shell: InteractiveShell) -> None:
    """A notebook that has not plotted yet does not know how to show a figure."""
    figure = getattr(sys.modules.get("matplotlib.figure"), "Figure", None)
    if figure is None or not isinstance(value, figure) or shell.display_formatter is None:
        return
    formatter = shell.display_formatter.formatters["image/png"]
    if not formatter.enabled or figure not in formatter.type_printers:
        from IPython.core.pylabtools import select_figure_formats

        select_figure_formats(shell, {"png"}, bbox_inches="tight")
