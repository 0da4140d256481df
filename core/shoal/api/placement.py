"""Where work runs: placement groups, and affinity to a node."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from shoal.api.looking import look
from shoal.api.session import owner_or_init
from shoal.model.description import Description, describe_safely
from shoal.model.errors import OptionError, ShoalError
from shoal.model.ids import new_group_id
from shoal.model.messages import Ask
from shoal.model.options import TaskOptions, with_changes
from shoal.model.placement import STRATEGIES, Placement
from shoal.model.resources import Resources, describe, make_resources
from shoal.model.suggest import did_you_mean
from shoal.runtime.refs import ObjectRef


@dataclasses.dataclass(frozen=True)
class NodeAffinity:
    """A ``scheduling_strategy``: run on this node.

    Attributes
    ----------
    node
        Its id, as :func:`shoal.nodes` and :func:`shoal.get_runtime_context` have it, or its Dask worker's address.
    soft
        Others will do when it has no room, or is gone. Otherwise the work waits, or fails at once if there is no such
        node.
    """

    node: str
    soft: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.node, str) or not self.node:
            raise OptionError(f"`node` must be a node's id or address, not {self.node!r}.", option="node")
        if not isinstance(self.soft, bool):
            raise OptionError(f"`soft` must be True or False, not {self.soft!r}.", option="soft")

    @property
    def placement(self) -> Placement:
        return Placement(node=self.node, soft=self.soft)


@dataclasses.dataclass(frozen=True)
class Bundle:
    """One bundle of a placement group, or any of them: a ``scheduling_strategy``. Made by the group."""

    group_id: str
    #: -1 for any with room.
    index: int

    @property
    def placement(self) -> Placement:
        return Placement(group_id=self.group_id, bundle=self.index)


class PlacementGroup:
    """Resources reserved together; made by :func:`placement_group`.

    Use it as ``scheduling_strategy=group``, or ``group.bundle(0)`` for one of its bundles. It can be passed to tasks
    and actors. Leaving a ``with`` block removes it.
    """

    def __init__(self, group_id: str, bundles: tuple[Resources, ...], strategy: str, ready: ObjectRef) -> None:
        self.id = group_id
        self.strategy = strategy
        self._bundles = bundles
        self._ready = ready

    @property
    def bundles(self) -> list[dict[str, float]]:
        """What each bundle reserves."""
        return [dict(bundle) for bundle in self._bundles]

    @property
    def placement(self) -> Placement:
        return Placement(group_id=self.id)

    def ready(self) -> ObjectRef:
        """Return a ref that becomes ready when every bundle is reserved; ``get`` of it returns None.

        It fails with ``InfeasibleError`` if the cluster could never hold the group.
        """
        return self._ready

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until every bundle is reserved, for *timeout* seconds at most; returns whether it is.

        Raises
        ------
        InfeasibleError
            The cluster could never hold the group.
        """
        from shoal.api.values import get, wait

        if not wait([self._ready], timeout=timeout)[0]:
            return False
        get(self._ready)
        return True

    def bundle(self, index: int) -> Bundle:
        """Return one bundle as a ``scheduling_strategy``; bundles are numbered from 0."""
        if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < len(self._bundles):
            raise OptionError(
                f"`{self.id}` has {len(self._bundles)} bundles, numbered from 0; {index!r} is none of them.",
                option="index",
            )
        return Bundle(self.id, index)

    def nodes(self) -> list[str]:
        """Return the id of the node that each bundle is on, in the order of the bundles; also inside tasks.

        A bundle that has none (yet, or for the moment) has "". Empty once the group was removed, and where nothing is
        reserved: in an inline session.

        Raises
        ------
        ClusterLostError
            There is nobody to ask.
        """
        found = owner_or_init().ask(lambda request: Ask(request, "bundles", (self.id,)))
        return list(found or ())

    def remove(self) -> None:
        """End what runs in the group and free its resources; harmless if that was done."""
        owner_or_init().remove_group(self.id)

    def __enter__(self) -> PlacementGroup:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.remove()

    def __reduce__(self) -> tuple[Any, ...]:
        return PlacementGroup, (self.id, self._bundles, self.strategy, self._ready)

    def __repr__(self) -> str:
        return f"<placement group {self.id}: {len(self._bundles)} bundles, {self.strategy}>"

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        return describe_safely(lambda: _describe(self), f"placement group {self.id}")


def _describe(group: PlacementGroup) -> Description:
    from shoal.runtime.describing import describe_ref

    reserved = describe_ref(group._ready)
    state = reserved.state
    facts: tuple[tuple[str, str], ...] = (("strategy", group.strategy),)
    nodes: tuple[str, ...] = ()
    if state == "ready":
        try:
            nodes = look(group._ready._owner, "bundles", group.id) or ()
            state = "reserved" if nodes else "removed"
        except (ShoalError, TimeoutError) as error:
            state, facts = "unknown", (*facts, ("reason", str(error)))
    elif state != "pending":
        facts = (*facts, *reserved.facts)
    rows = (
        (str(number), describe(bundle), nodes[number] if number < len(nodes) and nodes[number] else "nowhere")
        for number, bundle in enumerate(group._bundles)
    )
    return Description(f"placement group {group.id}", state, facts, ("bundle", "reserves", "node"), tuple(rows))


def placement_group(
    bundles: Sequence[Mapping[str, float]], strategy: str = "PACK", *, lifetime: str | None = None
) -> PlacementGroup:
    """Reserve several bundles of resources, all or none of them; returns at once.

    Parameters
    ----------
    bundles
        What each reserves, such as ``[{"num_cpus": 1}, {"num_cpus": 1, "num_gpus": 0.5}]``. A bundle is on one node.
    strategy
        ``"PACK"``: as few nodes as possible. ``"SPREAD"``: as many. ``"STRICT_PACK"``: one node. ``"STRICT_SPREAD"``: a
        node for each.
    lifetime
        ``"detached"`` for a group that outlives this driver.

    Raises
    ------
    OptionError
        No bundle, an empty one, amounts out of range, or no such strategy.

    Examples
    --------
    >>> import shoal
    >>> with shoal.init(num_cpus=2), shoal.placement_group([{"num_cpus": 1}] * 2) as group:
    ...     group.wait(timeout=10)
    True
    """
    if strategy not in STRATEGIES:
        hint = did_you_mean(strategy, STRATEGIES) if isinstance(strategy, str) else ""
        raise OptionError(f"`strategy` is one of {', '.join(STRATEGIES)}, not {strategy!r}.{hint}", option="strategy")
    if lifetime not in (None, "detached"):
        raise OptionError(f'`lifetime` must be None or "detached", not {lifetime!r}.', option="lifetime")
    if isinstance(bundles, Mapping) or not isinstance(bundles, Sequence) or not bundles:
        raise OptionError(f"`bundles` must be a list of mappings, at least one, not {bundles!r}.", option="bundles")
    wanted = tuple(_checked(bundle) for bundle in bundles)
    group_id = new_group_id()
    ready = owner_or_init().create_group(group_id, wanted, strategy, detached=lifetime == "detached")
    return PlacementGroup(group_id, wanted, strategy, ready)


def remove_placement_group(group: PlacementGroup) -> None:
    """The same as ``group.remove()``."""
    if not isinstance(group, PlacementGroup):
        raise TypeError(f"`remove_placement_group` takes a placement group, not {type(group).__name__}.")
    group.remove()


def _checked(bundle: Any) -> Resources:
    if not isinstance(bundle, Mapping):
        raise OptionError(f"A bundle is a mapping of names to amounts, not {bundle!r}.", option="bundles")
    own = {name: bundle[name] for name in ("num_cpus", "num_gpus", "memory") if name in bundle}
    rest = {name: amount for name, amount in bundle.items() if name not in own}
    options = with_changes(TaskOptions(num_cpus=0.0), {**own, "resources": rest})
    resources = options.kind().resources
    if not resources:
        raise OptionError(f"A bundle reserves something; {dict(bundle)!r} does not.", option="bundles")
    return make_resources(dict(resources))


__all__ = ["Bundle", "NodeAffinity", "PlacementGroup", "placement_group", "remove_placement_group"]
