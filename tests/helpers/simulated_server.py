"""The server extension as a page sees it, played by a test: its websocket and its REST interface.

Needs a page of playwright. What the clusters do comes from :mod:`simulated_cluster`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from playwright.sync_api import Page, Route, WebSocketRoute
from simulated_cluster import SimulatedCluster

#: Gives the status and the JSON of an answer; gets the query and the body.
Handler = Callable[[dict[str, str], Any], tuple[int, Any]]


class SimulatedServer:
    """Plays the server to one page. Construct it before the page is loaded.

    Parameters
    ----------
    live
        Whether there is a websocket; without one the page has to ask for the list.
    """

    def __init__(self, page: Page, *clusters: SimulatedCluster, live: bool = True) -> None:
        self.clusters = list(clusters)
        self.starts: list[dict[str, Any]] = []
        #: What the page said on the websocket, and what it asked for by other verbs than GET: verb, path, body.
        self.heard: list[dict[str, Any]] = []
        self.asked: list[tuple[str, str, Any]] = []
        self.handlers: dict[str, Handler] = {}
        self.live = live
        self._line: WebSocketRoute | None = None
        self._grid = False
        page.route_web_socket(re.compile(r"/shoal/api/v1/live"), self._open)
        page.route(re.compile(r"/shoal/api/v1/(?!live)"), self._answer)

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Return the list of clusters."""
        return [cluster.row for cluster in self.clusters] + self.starts

    def on(self, verb: str, path: str, handler: Handler) -> None:
        """Answer to *verb* and *path* (a regular expression below ``shoal/api/v1/``)."""
        self.handlers[f"{verb} {path}"] = handler

    def say(self, **message: Any) -> None:
        """Say something on the websocket, if it is open."""
        if self._line is not None:
            self._line.send(json.dumps(message))

    def say_list(self) -> None:
        self.say(type="clusters", clusters=self.rows)

    def say_snapshots(self) -> None:
        for cluster in self.clusters:
            self.say(type="snapshot", cluster=cluster.id, snapshot=cluster.snapshot)

    def step(self, seconds: float = 0.25) -> None:
        """Let time pass in all clusters, and tell of it."""
        for cluster in self.clusters:
            self.say(type="delta", cluster=cluster.id, delta=cluster.step(seconds))

    def say_grids(self) -> None:
        """Tell what the executors did, if the page wants to know."""
        if self._grid:
            for cluster in self.clusters:
                self.say(type="grid", cluster=cluster.id, **cluster.grid())

    def end(self, cluster: SimulatedCluster, message: str) -> None:
        """A cluster ends."""
        self.say(type="ended", cluster=cluster.id, message=message)
        self.clusters.remove(cluster)
        self.say_list()

    def hang_up(self) -> None:
        """The websocket breaks."""
        if self._line is not None:
            line, self._line = self._line, None
            line.close(code=1001)

    def _open(self, line: WebSocketRoute) -> None:
        if not self.live:
            line.close(code=1011)
            return
        self._line = line
        line.on_message(self._hear)
        self.say(type="hello", version=1, shoal="0.1.0")
        self.say_list()

    def _hear(self, text: str | bytes) -> None:
        message = json.loads(text)
        self.heard.append(message)
        if message["type"] == "watch":
            self._grid = message["grid"]
            self.say_snapshots()
            self.say_grids()

    def _answer(self, route: Route) -> None:
        url = urlsplit(route.request.url)
        path = unquote(url.path.partition("/shoal/api/v1/")[2])
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        verb, body = route.request.method, json.loads(route.request.post_data or "null")
        if verb != "GET":
            self.asked.append((verb, path, body))
        for pattern, handler in self.handlers.items():
            if re.fullmatch(pattern, f"{verb} {path}"):
                status, answer = handler(query, body)
                break
        else:
            if verb == "GET" and path == "clusters":
                snapshots = {cluster.id: cluster.snapshot for cluster in self.clusters}
                rows = [{**row, "snapshot": snapshots.get(row["id"])} for row in self.rows]
                status, answer = 200, {"clusters": rows}
            else:
                status, answer = 501, {"message": f"Nobody answers to {verb} {path}.", "reason": "not implemented"}
        route.fulfill(status=status, body=json.dumps(answer), content_type="application/json")
