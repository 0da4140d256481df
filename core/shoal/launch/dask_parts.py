"""Dask's collections in parts: what is to become one object each."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any, TypeAlias

from dask.base import compute, is_dask_collection
from dask.delayed import Delayed
from distributed import Client, Future

from shoal.model.errors import OptionError
from shoal.runtime.refs import ObjectRef

Part: TypeAlias = "Future[Any] | Delayed"


def parts_of(given: Any) -> list[Part]:
    """Return what is to become one object each, in order.

    Raises
    ------
    TypeError
        It is nothing of Dask's that has parts.
    """
    if isinstance(given, Future | Delayed):
        return [given]
    if isinstance(given, list | tuple):
        for item in given:
            if not isinstance(item, Future | Delayed):
                raise TypeError(f"A list for `from_dask` holds Dask futures or delayed values, not {_named(item)}.")
        return list(given)
    if not is_dask_collection(given) or not hasattr(given, "to_delayed"):
        raise TypeError(
            "`from_dask` takes a Dask future, a list of them, or a Dask array, bag, dataframe or delayed value, not "
            f"{_named(given)}."
        )
    bags = sys.modules.get("dask.bag")
    if bags is not None and isinstance(given, bags.Bag):
        given = given.map_partitions(list)  # a partition may be an iterator
    parts = given.to_delayed()
    if isinstance(parts, Delayed):
        return [parts]
    return list(parts) if isinstance(parts, list) else list(parts.ravel())  # an array's have its shape


def _named(thing: Any) -> str:
    hint = "" if not isinstance(thing, ObjectRef) else ": it is in the cluster already"
    return f"{type(thing).__name__}{hint}"


def clients_of(given: Any, parts: list[Part]) -> list[Client | None]:
    """Return the client that is to compute each part: the one whose futures it needs; None where any will do.

    Raises
    ------
    OptionError
        There is none that could.
    """
    if isinstance(given, list | tuple):
        return [_client_in(part) for part in parts]
    # Not of the parts: they are optimized, and name the keys of futures without the futures.
    return [_client_in(given)] * len(parts)


def _client_in(thing: Any) -> Client | None:
    found = {future.client for future in _futures_in(thing)}
    if None in found or len(found) > 1:
        which = "a client that is gone" if None in found else "several clients"
        raise OptionError(
            f"`from_dask` was given Dask futures of {which}, and only its own client knows for sure what becomes of a "
            "future. Make all of them with one client.",
            option="collection",
        )
    return found.pop() if found else None


def _futures_in(thing: Any) -> Iterator[Future[Any]]:
    """Find the futures in a collection's graph, those in the arguments of tasks included."""
    if isinstance(thing, Future):
        yield thing
        return
    graph = dict(thing.__dask_graph__())
    for node in graph.values():
        if isinstance(node, Future) or not graph.keys() >= getattr(node, "dependencies", set()):
            yield from _futures_among(node)


def _futures_among(node: Any) -> Iterator[Future[Any]]:
    if isinstance(node, Future):
        yield node
    elif isinstance(node, dict):
        yield from _futures_among(list(node.values()))
    elif isinstance(node, list | tuple | set):
        for item in node:
            yield from _futures_among(item)
    elif hasattr(node, "dependencies"):  # a task, or one of the containers in its arguments
        yield from _futures_among([getattr(node, "args", ()), getattr(node, "kwargs", {})])


def compute_here(parts: list[Part], clients: list[Client | None]) -> list[Any]:
    """Return the values of *parts*, computed by Dask's threaded scheduler in this process.

    What holds futures can be computed only where those are: by the *clients* that they are bound to.
    """
    parts = [
        client.compute(part) if client is not None and isinstance(part, Delayed) else part
        for part, client in zip(parts, clients, strict=True)
    ]
    values = iter(compute(*(part for part in parts if isinstance(part, Delayed)), scheduler="threads"))
    return [part.result() if isinstance(part, Future) else next(values) for part in parts]


__all__ = ["Part", "clients_of", "compute_here", "parts_of"]
