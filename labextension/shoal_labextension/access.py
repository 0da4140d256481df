"""What every handler has in common: who may, which cluster is meant, and how faults are told."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, TypeVar

from jupyter_server.auth.decorator import authorized
from jupyter_server.base.handlers import APIHandler
from tornado import web

from shoal.errors import ConnectError, ShoalError
from shoal.launch import registry

if TYPE_CHECKING:
    from shoal.launch.registry import Connection
    from shoal_labextension.services import Services

#: What an authoriser is asked about: to `read` it, to `write` (cancel, scale, stop), or to `execute` (start, profile).
AUTH_RESOURCE = "shoal:clusters"
#: Ids in addresses: what may stand there is in the registry or is not acted upon.
ID = r"[A-Za-z0-9_.\-]+"
_ID = re.compile(ID)
#: How those say that they cannot answer yet, who will some day.
_UNKNOWN_TOPIC = "knows nothing of"


Verb = TypeVar("Verb", bound=Callable[..., Any])


def may(action: str) -> Callable[[Verb], Verb]:
    """Have a verb ask the authoriser for another action than the one it stands for."""
    found: Callable[[Verb], Verb] = authorized(action)
    return found


class Problem(web.HTTPError):
    """An answer that says what is wrong; *reason* is one word for programs."""

    def __init__(self, status: int, message: str, reason: str) -> None:
        super().__init__(status, None)
        self.message = message
        self.word = reason


class ClusterHandler(APIHandler):
    """A handler of ours. Every verb of a subclass is `@web.authenticated` and `@authorized`."""

    auth_resource = AUTH_RESOURCE

    def initialize(self, services: Services) -> None:
        """Take what the handlers share."""
        self.services = services

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Answer with ``{"message", "reason"}``, without a traceback: that is for the server's log."""
        error = kwargs.get("exc_info", (None, None, None))[1]
        message, reason = "The server extension of shoal has failed: see the server's log.", "failed"
        if isinstance(error, Problem):
            message, reason = error.message, error.word
        elif isinstance(error, web.HTTPError):
            message = str(error.log_message or HTTPStatus(status_code).phrase)
            reason = HTTPStatus(status_code).phrase.lower()
        self.set_header("Content-Type", "application/json")
        self.finish(json.dumps({"message": message, "reason": reason}))

    async def reply(self, value: Any, status: int = 200) -> None:
        """Answer with JSON."""
        self.set_status(status)
        self.set_header("Cache-Control", "no-store")
        await self.finish(json.dumps(value))

    def body(self, *allowed: str) -> dict[str, Any]:
        """Return the body, a mapping with some of the *allowed* keys.

        Raises
        ------
        Problem
            It is something else.
        """
        try:
            found = json.loads(self.request.body or b"{}")
        except ValueError:
            raise Problem(400, "The body is no JSON.", "bad request") from None
        if not isinstance(found, dict) or not set(found) <= set(allowed):
            keys = ", ".join(f"`{name}`" for name in allowed)
            raise Problem(400, f"The body is a mapping with {keys}.", "bad request")
        return found

    async def connection(self, cluster_id: str) -> Connection:
        """Return the cluster of this id.

        Raises
        ------
        Problem
            There is none in this user's registry.
        """
        found = await asyncio.to_thread(registry.find, cluster_id) if _ID.fullmatch(cluster_id) else None
        if found is None:
            raise Problem(404, "There is no such cluster (any more).", "unknown cluster")
        return found

    async def ask(self, cluster_id: str, topic: str, *details: Any, target: str = "", timeout: float = 5.0) -> Any:
        """Ask a cluster's controller, or the owner or node *target*.

        Raises
        ------
        Problem
            There is no answer, and why: 501 if nobody can give one yet, 502 if the cluster does not answer, 409 if
            whoever was asked refuses.
        """
        connection = await self.connection(cluster_id)
        watches = await self.services.watches()
        try:
            async with watches.line(connection) as watch:
                return await watch.ask(topic, *details, target=target, timeout=timeout)
        except (ConnectError, TimeoutError) as error:
            raise Problem(502, str(error), "no answer") from error
        except ShoalError as error:
            if _UNKNOWN_TOPIC in str(error):
                raise not_there_yet(topic) from error
            raise Problem(409, str(error), "refused") from error


def not_there_yet(what: str) -> Problem:
    """An answer for what this version cannot do."""
    return Problem(501, f"This cluster's version of shoal cannot tell `{what}` yet.", "not there yet")


def text_of(fields: dict[str, Any], name: str, default: str | None = None, most: int = 500) -> str:
    """Return a text of a body.

    Raises
    ------
    Problem
        It is something else, longer than *most*, or missing without a default.
    """
    value = fields.get(name, default)
    if not isinstance(value, str) or len(value) > most:
        raise Problem(400, f"`{name}` is to be a text.", "bad request")
    return value


def flag_of(fields: dict[str, Any], name: str) -> bool:
    """Return a truth value of a body, False by default.

    Raises
    ------
    Problem
        It is something else.
    """
    value = fields.get(name, False)
    if not isinstance(value, bool):
        raise Problem(400, f"`{name}` is to be true or false.", "bad request")
    return value


def number_of(fields: dict[str, Any], name: str, least: float, most: float, default: float | None = None) -> float:
    """Return a number of a body or a query.

    Raises
    ------
    Problem
        It is something else, out of range, or missing without a default.
    """
    value = fields.get(name, default)
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            value = None
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise Problem(400, f"`{name}` is to be a number from {least:g} to {most:g}.", "bad request")
    return value
