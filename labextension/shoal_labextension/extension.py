"""What JupyterLab and the Jupyter server ask of an extension: where its files are and how it starts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shoal._version import __version__
from shoal_labextension.clusters import ClusterReader
from shoal_labextension.handlers import make_handlers

if TYPE_CHECKING:
    from jupyter_server.serverapp import ServerApp


def _jupyter_labextension_paths() -> list[dict[str, str]]:
    return [{"src": "labextension", "dest": "shoal-labextension"}]


def _jupyter_server_extension_points() -> list[dict[str, str]]:
    return [{"module": "shoal_labextension"}]


def _load_jupyter_server_extension(server_app: ServerApp) -> None:
    web_app = server_app.web_app
    reader = ClusterReader(log=server_app.log)
    web_app.add_handlers(".*$", make_handlers(web_app.settings["base_url"], reader))
    server_app.log.info("shoal_labextension %s: the panel's data is served under shoal/api/v1", __version__)
