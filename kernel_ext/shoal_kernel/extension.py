"""What loading the extension puts into a shell, and how it is taken out."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

from shoal.runtime.variables import add_keeper, remove_keeper
from shoal_kernel.cluster_widget import end_cards
from shoal_kernel.completing import Completing
from shoal_kernel.error_display import ErrorDisplay
from shoal_kernel.hints import Hints
from shoal_kernel.interrupting import Interrupting
from shoal_kernel.locating import CellWatch
from shoal_kernel.magics import Remote, parser
from shoal_kernel.placing import Placing
from shoal_kernel.progress import ProgressWatch
from shoal_kernel.reloading import Reloading
from shoal_kernel.routing import OutputRouter

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

_loaded: weakref.WeakKeyDictionary[InteractiveShell, Extension] = weakref.WeakKeyDictionary()


class Extension:
    """The hooks in one shell."""

    def __init__(self, shell: InteractiveShell) -> None:
        self._shell = shell
        self._watch = CellWatch(shell)
        self._router = OutputRouter(shell)
        self._errors = ErrorDisplay(shell)
        self._progress = ProgressWatch(shell, self._router)
        self._magics = Remote(shell, self._watch, self._router)
        self._placing = Placing(shell)
        self._interrupting = Interrupting(shell, self._router)
        self._reloading = Reloading(shell, self._router)
        magics = self._magics
        self._completing = Completing(shell, parser(), magics.subcommands.table, magics.jobs.ids, magics.names.of)
        self._hints = Hints(shell, self._router, lambda: bool(magics.hints))
        #: What `%config` lists; IPython annotates it for shells only.
        self._configurables: list[Any] = shell.configurables

    def start(self) -> None:
        self._watch.start()
        self._router.start()
        self._errors.start()
        self._progress.start()
        self._placing.start()
        self._interrupting.start()
        self._magics.code.start()
        self._reloading.start()
        add_keeper(self._magics.keeper)
        self._shell.register_magics(self._magics)
        self._configurables.append(self._magics)
        self._completing.start()
        self._hints.start()

    def stop(self) -> None:
        end_cards()
        self._hints.stop()
        self._completing.stop()
        self._magics.code.stop()
        remove_keeper(self._magics.keeper)
        self._configurables.remove(self._magics)
        manager = self._shell.magics_manager
        for kind in ("line", "cell"):
            manager.magics[kind].pop("remote", None)
        manager.registry.pop(type(self._magics).__name__, None)
        self._progress.stop()
        self._errors.stop()
        self._reloading.stop()
        self._interrupting.stop()
        self._placing.stop()
        self._router.stop()
        self._watch.stop()


def load(shell: InteractiveShell) -> None:
    """Install the extension in *shell*, once."""
    if shell not in _loaded:
        extension = Extension(shell)
        extension.start()
        _loaded[shell] = extension


def unload(shell: InteractiveShell) -> None:
    """Take the extension out of *shell*, if it is there."""
    extension = _loaded.pop(shell, None)
    if extension is not None:
        extension.stop()
