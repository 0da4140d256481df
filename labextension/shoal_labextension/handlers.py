"""The HTTP side of the panel: one address, which lists this user's clusters."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from jupyter_server.auth.decorator import authorized
from jupyter_server.base.handlers import APIHandler
from jupyter_server.utils import url_path_join
from tornado import web

if TYPE_CHECKING:
    from shoal_labextension.clusters import ClusterReader

#: What an authoriser is asked about; the panel only ever asks to `read` it.
AUTH_RESOURCE = "shoal:clusters"


class ClustersHandler(APIHandler):
    """``GET shoal/api/v1/clusters``: every live cluster of this user with its newest snapshot.

    The request carries nothing that is acted upon. Which clusters there are, and where, is read from this
    user's own connection files; an address is never taken from the page.
    """

    auth_resource = AUTH_RESOURCE

    def initialize(self, reader: ClusterReader) -> None:
        """Take what the handlers share."""
        self._reader = reader

    @web.authenticated
    @authorized
    async def get(self) -> None:
        """Answer with ``{"clusters": [...]}``; clusters that do not answer are listed with a message."""
        clusters = await self._reader.read()
        self.set_header("Cache-Control", "no-store")
        await self.finish(json.dumps({"clusters": clusters}))


def make_handlers(base_url: str, reader: ClusterReader) -> list[tuple[str, type[APIHandler], dict[str, Any]]]:
    """Give the routes below the server's base URL."""
    return [(url_path_join(base_url, "shoal", "api", "v1", "clusters"), ClustersHandler, {"reader": reader})]
