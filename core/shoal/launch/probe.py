"""Asking a cluster how it is, without becoming part of it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from shoal.launch.dask_cluster import security_from
from shoal.launch.registry import Connection
from shoal.model.errors import ConnectError, ShoalMissingError
from shoal.runtime.controller_plugin import SNAPSHOT_OPERATION
from shoal.transport.comms import Security, connect


async def fetch_snapshot(connection: Connection, timeout: float = 2.0) -> dict[str, Any]:
    """Return the snapshot (:mod:`shoal.observe.cluster_view`) of the cluster that *connection* names.

    Raises
    ------
    ConnectError
        It does not answer.
    ShoalMissingError
        A Dask cluster answers, without shoal: :mod:`shoal.launch.dask_view` shows what it tells.
    TimeoutError
        It did not answer within *timeout* seconds.
    """
    return await snapshot_at(connection.address, security_from(connection.tls_files()), timeout)


async def snapshot_at(address: str, security: Security, timeout: float) -> dict[str, Any]:
    """As :func:`fetch_snapshot`, for an address."""
    async with asyncio.timeout(timeout):
        comm = await connect(address, security, timeout)
        try:
            await comm.write({"op": SNAPSHOT_OPERATION, "close": True})
            answer = await comm.read()
        except OSError as error:
            raise ConnectError(f"No answer from `{address}`: {error}", address=address) from error
        finally:
            comm.abort()
    if not isinstance(answer, dict) or "nodes" not in answer:
        raise ShoalMissingError(f"There is no shoal in the Dask cluster at `{address}`.", address=address)
    return as_json(answer)


def as_json(answer: dict[str, Any]) -> dict[str, Any]:
    """Return a snapshot as JSON has it: messages bring sequences as tuples."""
    plain: dict[str, Any] = json.loads(json.dumps(answer))
    return plain
