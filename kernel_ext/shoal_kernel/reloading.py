"""Pages that were reloaded: they ask once for what they have missed.

The extension of JupyterLab (``displays.ts``) opens a comm for that, when a notebook that it opens has displays of this
kernel. Comms have subshells there, so the answer does not wait for the cell that runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from shoal_kernel.routing import OutputRouter

#: What the extension of JupyterLab asks for.
TARGET = "shoal.displays"


class Reloading:
    """Answers those pages from :meth:`start` to :meth:`stop`; outside a kernel there are none."""

    def __init__(self, shell: InteractiveShell, router: OutputRouter) -> None:
        self._comms: Any = getattr(getattr(shell, "kernel", None), "comm_manager", None)
        self._router = router

    def start(self) -> None:
        if self._comms is not None:
            self._comms.register_target(TARGET, self._asked)

    def stop(self) -> None:
        if self._comms is not None:
            self._comms.unregister_target(TARGET, self._asked)

    def _asked(self, comm: Any, _: object) -> None:
        self._router.show_again()
        comm.close()
