"""What takes a cluster's numbers elsewhere: a timeline to download, a page of analyses, metrics for Prometheus."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from typing import TYPE_CHECKING, Any

from jupyter_server.auth.decorator import authorized
from tornado import web

from shoal_labextension.access import ClusterHandler, Problem, not_there_yet
from shoal_labextension.questions import module_of

if TYPE_CHECKING:
    from shoal.observe.records import Batch

#: Records in a timeline, and on the page of analyses.
TIMELINE_RECORDS, ANALYSIS_RECORDS = 50_000, 200_000
#: Seconds to collect records, and to draw the page.
RECORDS_TIMEOUT, DRAW_TIMEOUT = 20.0, 60.0


class _Exporting(ClusterHandler):
    async def batches(self, cluster_id: str, limit: int) -> list[Batch]:
        """Return the batches with the newest *limit* records, the oldest first."""
        from shoal.observe.records import Batch

        rows = await self.ask(cluster_id, "records", limit, timeout=RECORDS_TIMEOUT)
        return [Batch(*row) for row in rows]


class TimelineHandler(_Exporting):
    """``clusters/<id>/timeline``: trace events, for Perfetto and ``chrome://tracing``."""

    @web.authenticated
    @authorized
    async def get(self, cluster_id: str) -> None:
        """Answer with a file."""
        await self.connection(cluster_id)
        module = await module_of("shoal.observe.trace_events", "timeline")
        snapshot = await self.ask(cluster_id, "snapshot")
        executors = await self.ask(cluster_id, "executor_nodes")
        batches = await self.batches(cluster_id, TIMELINE_RECORDS)

        def make() -> str:
            from shoal.observe.records import records_of

            trace = module.trace_events(
                records_of(batches),
                name=snapshot["cluster"]["name"],
                executors=dict(executors or ()),
                hosts={node["id"]: node["host"] for node in snapshot["nodes"]},
                history=snapshot["history"],
            )
            return json.dumps(trace, separators=(",", ":"), allow_nan=False)

        name = re.sub(r"[^A-Za-z0-9_.-]+", "-", snapshot["cluster"]["name"]) or "cluster"
        self.set_header("Content-Type", "application/json")
        self.set_header("Content-Disposition", f'attachment; filename="{name}-timeline.json"')
        await self.finish(await asyncio.to_thread(make))


class AnalysisHandler(_Exporting):
    """``clusters/<id>/analysis``: a page drawn by a process of its own, so that nobody waits for it but who asked."""

    @property
    def content_security_policy(self) -> str:
        """The page's scripts run, in an origin of their own: they reach nothing of this server's."""
        return "; ".join(
            [
                "sandbox allow-scripts allow-downloads",
                "default-src 'none'",
                "script-src 'unsafe-inline' 'unsafe-eval'",
                "style-src 'unsafe-inline'",
                "img-src data: blob:",
                "font-src data:",
            ]
        )

    @web.authenticated
    @authorized
    async def get(self, cluster_id: str) -> None:
        """Answer with HTML."""
        await self.connection(cluster_id)
        module = await module_of("shoal.observe.analysis_page", "analysis")
        snapshot = await self.ask(cluster_id, "snapshot")
        snapshot = {**snapshot, "cell_memory": await self.ask(cluster_id, "cell_memory") or ()}
        given = module.pack(_plain(snapshot), await self.batches(cluster_id, ANALYSIS_RECORDS))
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "shoal.observe.analysis_page"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(DRAW_TIMEOUT):
                page, said = await process.communicate(given)
        except TimeoutError:
            raise Problem(504, f"The page was not drawn within {DRAW_TIMEOUT:g} s.", "no answer") from None
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode:
            last = said.decode(errors="replace").strip().rpartition("\n")[2]
            raise Problem(500, f"The page could not be drawn: {last}", "failed")
        self.set_header("Content-Type", "text/html; charset=utf-8")
        self.set_header("Cache-Control", "no-store")
        await self.finish(page)


class MetricsHandler(_Exporting):
    """``clusters/<id>/metrics``: the text format of Prometheus, for whoever may read the clusters."""

    @web.authenticated
    @authorized
    async def get(self, cluster_id: str) -> None:
        """Answer with text."""
        await self.connection(cluster_id)
        module = await module_of("shoal.observe.prometheus", "metrics")
        snapshot = await self.ask(cluster_id, "snapshot")
        rows = await self.ask(cluster_id, "metrics")
        if rows is None:
            raise not_there_yet("metrics")
        text = await asyncio.to_thread(module.exposition, snapshot, rows)
        self.set_header("Content-Type", module.CONTENT_TYPE)
        self.set_header("Cache-Control", "no-store")
        await self.finish(text)


def _plain(answer: Any) -> Any:
    """Return an answer as JSON has it: messages bring sequences as tuples."""
    return json.loads(json.dumps(answer))
