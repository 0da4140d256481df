"""What JupyterLab and the Jupyter server ask of an extension: where its files are, how it starts and how it ends."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jupyter_server.extension.application import ExtensionApp

from shoal._version import __version__
from shoal_labextension.handlers import make_handlers
from shoal_labextension.services import Services

if TYPE_CHECKING:
    from jupyter_server.serverapp import ServerApp


class ShoalExtension(ExtensionApp):
    """Serves the panel's data; what it has started for that ends with the server, clusters do not."""

    name = "shoal_labextension"

    def initialize_handlers(self) -> None:
        """Add the routes."""
        assert self.serverapp is not None
        self.services = Services(self.serverapp.root_dir, self.log)
        # As before an extension app was needed: beside the handlers of the server itself.
        base_url = self.serverapp.web_app.settings["base_url"]
        self.serverapp.web_app.add_handlers(".*$", make_handlers(base_url, self.services))
        self.log.info("shoal_labextension %s: the panel's data is served under shoal/api/v1", __version__)

    async def stop_extension(self) -> None:
        """The server ends: hang up on clusters, and take back the starts in progress."""
        await self.services.close()


def _jupyter_labextension_paths() -> list[dict[str, str]]:
    return [{"src": "labextension", "dest": "shoal-labextension"}]


def _jupyter_server_extension_points() -> list[dict[str, Any]]:
    return [{"module": "shoal_labextension", "app": ShoalExtension}]


def _load_jupyter_server_extension(server_app: ServerApp) -> None:
    ShoalExtension._load_jupyter_server_extension(server_app)  # type: ignore[no-untyped-call]
