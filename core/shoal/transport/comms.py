"""Connecting and listening through ``distributed.comm``, secured as the Dask cluster is.

Comms are opened with ``deserialize=False``: what a peer sends is never unpickled by the transport.
"""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable
from typing import Any

from distributed.comm.addressing import get_address_host, parse_address
from distributed.comm.core import connect as _connect
from distributed.comm.core import listen as _listen
from distributed.security import Security
from distributed.utils import get_ip

from shoal.model.errors import ConnectError
from shoal.transport.stream import Comm

#: The operation under which our plugins take over a comm that a Dask server accepted.
OPERATION = "shoal"

__all__ = ["OPERATION", "Security", "address_host", "connect", "host_towards", "listen", "server_context"]


def server_context(security: Security) -> ssl.SSLContext | None:
    """Return the TLS of a server that answers in the cluster's name; None for a cluster without TLS.

    Callers must show a certificate that the cluster's authority has signed.
    """
    context: ssl.SSLContext | None = _arguments(security.get_listen_args, "worker", "client").get("ssl_context")
    return context


def address_host(address: str) -> str:
    """Return the host in a comm address such as ``tls://10.0.0.4:8786``."""
    host: str = get_address_host(address)
    return host


async def connect(address: str, security: Security, timeout: float, *, to_dask_server: bool = False) -> Comm:
    """Open a comm to *address* within *timeout* seconds.

    Parameters
    ----------
    to_dask_server
        The peer is a Dask scheduler or worker: greet it with :data:`OPERATION`, so that our plugin there takes the
        comm over as a stream.

    Raises
    ------
    ConnectError
        Nobody answered in time, or TLS was refused.
    """
    try:
        comm = await _connect(
            address, timeout=timeout, deserialize=False, **_arguments(security.get_connection_args, "client", "worker")
        )
        if to_dask_server:
            await comm.write({"op": OPERATION, "reply": False})
    except (OSError, ValueError, TypeError, RuntimeError) as error:
        raise ConnectError(f"No answer from `{address}`: {error}", address=address) from error
    return comm  # type: ignore[no-any-return]


async def listen(
    host: str, like_address: str, security: Security, on_comm: Callable[[Comm], Awaitable[None]]
) -> tuple[Any, str]:
    """Listen on a free port of *host* with the protocol of *like_address*; return the listener and its address.

    ``on_comm`` owns each accepted comm until it returns. With TLS only peers whose certificate the cluster's
    authority signed get that far.
    """
    protocol, _ = parse_address(like_address)

    async def handle(comm: Comm) -> None:
        try:
            await on_comm(comm)
        finally:
            comm.abort()

    listener = _listen(
        f"{protocol}://{host}:0", handle, deserialize=False, **_arguments(security.get_listen_args, "worker", "client")
    )
    await listener.start()
    return listener, listener.contact_address


def _arguments(arguments_of: Callable[[str], dict[str, Any]], *roles: str) -> dict[str, Any]:
    """Return the arguments for the first of *roles* that has a certificate: not every process has one for each."""
    for role in (*roles, "scheduler"):
        arguments = arguments_of(role)
        if arguments.get("ssl_context") is not None:
            return arguments
    return arguments_of(roles[0])


def host_towards(peer_host: str) -> str:
    """Return the address of this machine that *peer_host* can reach."""
    address: str = get_ip(peer_host)
    return address
