"""What a cluster's keeper can be asked to do: to scale it, adapt it, and end it.

The keeper is whoever started the cluster: the head of an embedded cluster (the operations are its scheduler's then), or
the process of a detached one, which has an address of its own if the scheduler is elsewhere.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from shoal.model.errors import ConnectError, ShoalError
from shoal.transport.comms import Security, connect
from shoal.transport.stream import Comm

#: Operations. Each answers with a mapping; one with ``failed`` says why it was not done.
STOP_OPERATION = "shoal_stop"
ADAPT_OPERATION = "shoal_adapt"
IDLE_OPERATION = "shoal_idle_stop"

#: What serves one.
Operation = Callable[..., Awaitable[dict[str, Any]]]


async def tell_keeper(
    address: str, security: Security, operation: str, timeout: float, /, **fields: Any
) -> dict[str, Any]:
    """Have the keeper at *address* carry an operation out, and return its answer.

    Raises
    ------
    ShoalError
        It says why it does not.
    ConnectError
        It was lost before it answered.
    TimeoutError
        It took longer than *timeout* seconds.
    """
    async with asyncio.timeout(timeout):
        comm = await connect(address, security, timeout)
        try:
            await comm.write({"op": operation, **fields, "close": True})
            answer: Any = await comm.read()
        except OSError as error:
            raise ConnectError(f"`{address}` was lost before it answered: {error}", address=address) from error
        finally:
            comm.abort()
    if not isinstance(answer, dict) or answer.get("status") == "uncaught-error":
        raise ShoalError("The cluster does not know how to do this: it runs another version of shoal.")
    if "failed" in answer:
        raise ShoalError(str(answer["failed"]))
    return answer


async def serve_operations(comm: Comm, operations: Mapping[str, Operation]) -> None:
    """Answer one request, as a Dask scheduler does for operations that it was given."""
    try:
        message: Any = await comm.read()
        operation = operations.get(message.pop("op", "")) if isinstance(message, dict) else None
        if operation is None:
            await comm.write({"failed": "This cluster was started elsewhere: scale it and stop it there."})
            return
        message.pop("close", None)
        message.pop("reply", None)
        try:
            answer = await operation(**message)
        except TypeError as error:  # fields of another version
            answer = {"failed": str(error)}
        await comm.write(answer)
    except OSError:
        pass  # whoever asked has hung up
