"""Where a cell runs, in words."""

from __future__ import annotations

import pytest
from IPython.core.error import UsageError

import shoal
from shoal_kernel.targets import places

NODES = [
    shoal.Node("node-a", "tls://a:1", {"host": "a", "zone": "east"}, {}, {}),
    shoal.Node("node-b", "tls://b:1", {"host": "b", "zone": "west"}, {}, {}),
    shoal.Node("node-c", "tls://b:2", {"host": "b", "zone": "west"}, {}, {}),
]


def test_anywhere() -> None:
    (place,) = places("any", NODES)
    assert (place.label, place.options) == ("", {})


@pytest.mark.parametrize(
    ("text", "nodes", "labels"),
    [
        ("all", ["node-a", "node-b", "node-c"], ["node-a", "node-b", "node-c"]),
        ("0:2", ["node-a", "node-b"], ["a", "b"]),
        ("0,2", ["node-a", "node-c"], ["a", "b"]),
        ("2,0:2,0", ["node-c", "node-a", "node-b"], ["node-c", "node-a", "node-b"]),
        ("1", ["node-b"], [""]),
    ],
)
def test_by_number_and_all(text: str, nodes: list[str], labels: list[str]) -> None:
    found = places(text, NODES)
    assert [place.options["scheduling_strategy"].node for place in found] == nodes
    assert [place.label for place in found] == labels


@pytest.mark.parametrize(
    ("text", "labels"),
    [("host:b", {"host": "b"}), ("label:zone=east", {"zone": "east"}), ("label:host=a", {"host": "a"})],
)
def test_by_label(text: str, labels: dict[str, str]) -> None:
    (place,) = places(text, NODES)
    assert place.options == {"label_selector": labels}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("everywhere", "`--on everywhere` means nothing"),
        ("al", "Did you mean `all`?"),
        ("3", "numbered from 0 to 2"),
        ("1:9", "numbered from 0 to 2"),
        ("2:2", "matches nothing"),
        ("0,x", "`x` is no node's number"),
        ("host:c", "No node has `host=c`: there are `a`, `b`"),
        ("label:zone", "a label looks like `label:zone=a`"),
        ("label:rack=1", "no node has such a label"),
        ("-1", "means nothing"),
        ("__import__('os')", "means nothing"),
    ],
)
def test_what_matches_nothing_is_refused(text: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        places(text, NODES)


def test_a_cluster_without_nodes() -> None:
    with pytest.raises(UsageError, match="has no nodes yet"):
        places("all", [])
