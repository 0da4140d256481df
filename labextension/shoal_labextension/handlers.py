"""The routes of the server extension, below ``<base_url>/shoal/api/v1``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jupyter_server.utils import url_path_join

from shoal_labextension import exports, lifecycle, questions
from shoal_labextension.access import ID
from shoal_labextension.live import LiveHandler

if TYPE_CHECKING:
    from tornado.web import RequestHandler

    from shoal_labextension.services import Services

ROUTES: tuple[tuple[str, type[RequestHandler]], ...] = (
    ("live", LiveHandler),
    ("clusters", lifecycle.ClustersHandler),
    ("specs", lifecycle.SpecsHandler),
    (f"starts/({ID})", lifecycle.StartHandler),
    (f"clusters/({ID})", lifecycle.ClusterIdHandler),
    (f"clusters/({ID})/cancel", questions.CancelHandler),
    (f"clusters/({ID})/actors/({ID})", questions.ActorHandler),
    (f"clusters/({ID})/pending", questions.PendingHandler),
    (f"clusters/({ID})/why", questions.WhyHandler),
    (f"clusters/({ID})/failures", questions.FailuresHandler),
    (f"clusters/({ID})/memory", questions.MemoryHandler),
    (f"clusters/({ID})/release", questions.ReleaseHandler),
    (f"clusters/({ID})/logs", questions.LogsHandler),
    (f"clusters/({ID})/executors", questions.ExecutorsHandler),
    (f"clusters/({ID})/stack", questions.StackHandler),
    (f"clusters/({ID})/profile", questions.ProfileHandler),
    (f"clusters/({ID})/timeline", exports.TimelineHandler),
    (f"clusters/({ID})/analysis", exports.AnalysisHandler),
    (f"clusters/({ID})/metrics", exports.MetricsHandler),
)


def make_handlers(base_url: str, services: Services) -> list[tuple[str, type[RequestHandler], dict[str, Any]]]:
    """Give the routes below the server's base URL."""
    return [
        (url_path_join(base_url, "shoal", "api", "v1", route), handler, {"services": services})
        for route, handler in ROUTES
    ]
