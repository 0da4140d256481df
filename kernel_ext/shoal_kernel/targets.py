"""``--on``: where a cell is to run, in words that are looked up and never evaluated."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from typing import Any

from IPython.core.error import UsageError

import shoal
from shoal.model.suggest import did_you_mean

GRAMMAR = "`any`, `all`, `host:NAME`, `label:KEY=VALUE`, a node's number, or several as in `0,2` and `0:4`"
_NUMBERS = re.compile(r"(\d+)(?::(\d+))?")


@dataclasses.dataclass(frozen=True)
class Place:
    """Where one copy of a cell runs."""

    #: What tells it from the other copies; "" for the only one.
    label: str
    #: Options of its task.
    options: dict[str, Any]


def places(text: str, nodes: Sequence[shoal.Node]) -> list[Place]:
    """Return where the copies of a cell run that ``--on`` *text* asks for: one, or one for each node named.

    Parameters
    ----------
    nodes
        The cluster's, in the order in which they are numbered.

    Raises
    ------
    UsageError
        It means nothing, or no node matches.
    """
    kind, colon, rest = text.partition(":")
    if text == "any":
        return [Place("", {})]
    if text == "all":
        return _each_of(nodes)
    if kind in ("host", "label") and colon:
        return [_labelled("host", rest, nodes) if kind == "host" else _label(rest, nodes)]
    if _NUMBERS.match(text):
        chosen = [nodes[number] for number in _numbers(text, len(nodes))]
        return _each_of(chosen) if len(chosen) > 1 else [_on(chosen[0], "")]
    raise UsageError(
        f"`--on {text}` means nothing.{did_you_mean(text, ['any', 'all', 'host:', 'label:'])} Say {GRAMMAR}."
    )


def _each_of(nodes: Sequence[shoal.Node]) -> list[Place]:
    if not nodes:
        raise UsageError("The cluster has no nodes yet; `%remote status` shows them when they come.")
    hosts = [node.labels.get("host", node.id) for node in nodes]
    unique = len(set(hosts)) == len(hosts)
    return [_on(node, host if unique else node.id) for node, host in zip(nodes, hosts, strict=True)]


def _on(node: shoal.Node, label: str) -> Place:
    return Place(label, {"scheduling_strategy": shoal.NodeAffinity(node.id)})


def _label(text: str, nodes: Sequence[shoal.Node]) -> Place:
    key, equals, value = text.partition("=")
    if not (key and equals and value):
        raise UsageError(f"`--on label:{text}`: a label looks like `label:zone=a`.")
    return _labelled(key, value, nodes)


def _labelled(key: str, value: str, nodes: Sequence[shoal.Node]) -> Place:
    known = sorted({node.labels[key] for node in nodes if key in node.labels})
    if value not in known:
        there = f"there are {', '.join(f'`{label}`' for label in known)}" if known else "no node has such a label"
        raise UsageError(f"No node has `{key}={value}`: {there}.{did_you_mean(value, known)} Nothing was sent.")
    return Place("", {"label_selector": {key: value}})


def _numbers(text: str, count: int) -> list[int]:
    found: list[int] = []
    for part in text.split(","):
        match = _NUMBERS.fullmatch(part.strip())
        if match is None:
            raise UsageError(f"`--on {text}`: `{part.strip()}` is no node's number. Say {GRAMMAR}.")
        first = int(match[1])
        found += range(first, int(match[2])) if match[2] else [first]
    if not found or max(found) >= count:
        nodes = "one node, number 0" if count == 1 else f"{count} nodes, numbered from 0 to {count - 1}"
        raise UsageError(f"`--on {text}` matches nothing: the cluster has {nodes}. Nothing was sent.")
    return list(dict.fromkeys(found))
