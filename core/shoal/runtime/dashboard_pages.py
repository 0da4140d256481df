"""Our pages on the HTTP server of a Dask scheduler: ``/shoal/metrics`` and ``/shoal/analysis``.

That server asks nobody who they are. So the pages are there only where the cluster has no TLS, and everybody who
reaches it may do as they like anyway, or where its administrator says so (``SHOAL_DASHBOARD_PAGES=1``).
"""

from __future__ import annotations

import asyncio
import os
import sys
import time

from tornado.web import Application, RequestHandler

from shoal.observe.analysis_page import pack
from shoal.observe.prometheus import CONTENT_TYPE, exposition
from shoal.runtime.controller import Controller
from shoal.runtime.environment import dashboard_pages_allowed

#: Records that the analysis page shows: the newest.
MAX_RECORDS = 100_000
#: Seconds that drawing may take, and for which a page is shown again.
DRAW_TIMEOUT, FRESH = 60.0, 5.0


def add_pages(application: Application, address: str, controller: Controller) -> None:
    """Add the pages to a scheduler's HTTP server if they may be there; *address* is the scheduler's."""
    if address.startswith("tls://") and not dashboard_pages_allowed():
        return
    drawer = Drawer(controller)
    application.add_handlers(
        ".*$",
        [
            ("/shoal/metrics", _MetricsPage, {"controller": controller}),
            ("/shoal/analysis", _AnalysisPage, {"drawer": drawer}),
        ],
    )


class Drawer:
    """Draws the analysis page in a process of its own, one at a time: the scheduler has other things to do."""

    def __init__(self, controller: Controller) -> None:
        self._controller = controller
        self._lock = asyncio.Lock()
        self._page = b""
        self._drawn = 0.0

    async def draw(self) -> bytes:
        """Return the page; one that was drawn some seconds ago will do.

        Raises
        ------
        RuntimeError
            It cannot be drawn here, or not in time; the message says why.
        """
        async with self._lock:
            if not self._page or time.monotonic() - self._drawn > FRESH:
                self._page = await self._draw()
                self._drawn = time.monotonic()
            return self._page

    async def _draw(self) -> bytes:
        shown = {**self._controller.snapshot(), "cell_memory": self._controller.cell_memory_rows()}
        packed = pack(shown, self._controller.newest_records(MAX_RECORDS))
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "shoal.observe.analysis_page",
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )  # fmt: skip
        try:
            page, errors = await asyncio.wait_for(process.communicate(packed), DRAW_TIMEOUT)
        except TimeoutError:
            raise RuntimeError(f"it was not drawn within {DRAW_TIMEOUT:g} s") from None
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode:
            said = errors.decode(errors="replace").strip().rpartition("\n")[2]
            raise RuntimeError(said or f"the process that draws it has ended with {process.returncode}")
        return page


class _MetricsPage(RequestHandler):
    def initialize(self, controller: Controller) -> None:
        self._controller = controller

    async def get(self) -> None:
        snapshot, rows = self._controller.snapshot(), self._controller.metric_rows()
        text = await asyncio.to_thread(exposition, snapshot, rows)
        self.set_header("Content-Type", CONTENT_TYPE)
        self.finish(text)


class _AnalysisPage(RequestHandler):
    def initialize(self, drawer: Drawer) -> None:
        self._drawer = drawer

    async def get(self) -> None:
        try:
            self.finish(await self._drawer.draw())
        except RuntimeError as error:
            self.set_status(503)
            self.set_header("Content-Type", "text/plain; charset=utf-8")
            self.finish(f"There is no analysis page here: {error}. It needs bokeh where the scheduler runs.\n")


__all__ = ["add_pages"]
