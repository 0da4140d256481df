"""Bringing shoal into a running Dask cluster."""

from __future__ import annotations

import warnings
from typing import Any

from distributed import Client
from distributed.security import Security
from distributed.versions import VersionMismatchWarning

from shoal.launch.compare import check_versions
from shoal.model.errors import ConnectError, ShoalMissingError, VersionMismatchError
from shoal.model.ids import random_id
from shoal.runtime.agent_plugin import AgentPlugin
from shoal.runtime.controller_plugin import ControllerPlugin
from shoal.runtime.versions import COMPARED, versions_here


def endpoint_of(dask_object: Any) -> tuple[str, Security]:
    """Return the scheduler's address and the security of a Dask client or cluster object.

    Raises
    ------
    TypeError
        It is neither.
    """
    if isinstance(dask_object, Client):
        if dask_object.scheduler is None:
            raise ConnectError("The dask Client is not connected.")
        return str(dask_object.scheduler.address), dask_object.security
    address = getattr(dask_object, "scheduler_address", None)
    if isinstance(address, str):
        return address, getattr(dask_object, "security", None) or Security()
    raise TypeError(f"Expected an address, a dask Client or a dask cluster, not {type(dask_object).__name__}.")


def security_from(tls: dict[str, str]) -> Security:
    """Return the security of a cluster whose connection directory holds *tls* files, else Dask's configured one."""
    if not tls:
        return Security()
    return Security(
        require_encryption=True,
        tls_ca_file=tls["ca"],
        tls_client_cert=tls["cert"],
        tls_client_key=tls["key"],
        tls_worker_cert=tls["cert"],
        tls_worker_key=tls["key"],
        tls_scheduler_cert=tls["cert"],
        tls_scheduler_key=tls["key"],
    )


def pem_texts(security: Security) -> dict[str, str]:
    """Return the PEM texts a driver of this cluster uses, by role; empty without TLS."""
    fields = {"ca": "tls_ca_file", "cert": "tls_client_cert", "key": "tls_client_key"}
    parts = {role: getattr(security, field) for role, field in fields.items()}
    texts = {}
    for role, part in parts.items():
        if not part:
            return {}
        if "\n" not in part:
            with open(part) as file:
                part = file.read()
        texts[role] = part
    return texts


async def install(address: str, security: Security, name: str, timeout: float, cluster_id: str = "") -> None:
    """Make sure that controller and node agents run in the Dask cluster at *address*.

    A controller that is new gets *cluster_id*, or an id of its own.

    Raises
    ------
    ConnectError
        Nobody answered within *timeout* seconds, TLS was refused, or the plugins could not start.
    ShoalMissingError
        The scheduler takes no plugins: shoal cannot run there.
    VersionMismatchError
        See :func:`shoal.launch.compare.check_versions`.
    """
    client: Any = Client(address, security=security, timeout=timeout, asynchronous=True, set_as_default=False)
    try:
        with warnings.catch_warnings():
            # Dask has a table of its own; ours says what follows from it.
            warnings.simplefilter("ignore", VersionMismatchWarning)
            await client
        await _check(client)
        await _register(client, address, ControllerPlugin(cluster_id or random_id("cluster"), name, pages=True))
        await client.register_plugin(AgentPlugin())
    except (VersionMismatchError, ShoalMissingError):
        raise
    except (OSError, TimeoutError, ValueError, TypeError, RuntimeError) as error:
        hint = " It speaks TLS: pass `security=`." if address.startswith("tls") and not pem_texts(security) else ""
        said = str(error) or type(error).__name__
        raise ConnectError(f"No usable Dask cluster at `{address}`: {said}.{hint}", address=address) from error
    finally:
        # Also when it never connected: a client that is not closed complains when it is collected.
        await client.close()


async def _register(client: Any, address: str, plugin: ControllerPlugin) -> None:
    try:
        await client.register_plugin(plugin)
    except (ValueError, ImportError) as error:  # a handler that is switched off, or no shoal to make the plugin from
        raise ShoalMissingError(
            f"The Dask scheduler at `{address}` takes no plugins ({str(error).rstrip('.')}), and shoal's controller is "
            "one: no task or actor can run there. Have shoal installed where the scheduler runs, and "
            "`register_scheduler_plugin` taken out of `distributed.scheduler.blocked-handlers`. Until then the panel "
            "shows what Dask tells of its workers: *Start a cluster…*, by address.",
            address=address,
        ) from error


async def _check(client: Any) -> None:
    found = await client.get_versions(packages=[*COMPARED, "shoal"])
    nodes: dict[str, dict[str, str]] = {}
    for place, report in (("scheduler", found["scheduler"]), *found["workers"].items()):
        versions = {name: version for name, version in report["packages"].items() if isinstance(version, str)}
        # Dask says e.g. `3.11.7.final.0`.
        versions["python"] = ".".join(versions["python"].split(".")[:3])
        nodes[place] = {
            name: version for name, version in versions.items() if name in versions_here() or name == "shoal"
        }
    check_versions(versions_here(), nodes)
