"""The cluster card."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Any

import pytest

from shoal.api.card import render_html, render_text

EVIL = '<script>alert("x")</script>&'


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()
        self.attributes: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open.append(tag)
        self.seen.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def parse(html: str) -> Tags:
    tags = Tags()
    tags.feed(html)
    tags.close()
    assert tags.open == [], "every tag is closed"
    return tags


def snapshot(name: str = "bold-heron", host: str = "127.0.0.1", nodes: int = 1) -> dict[str, Any]:
    node = {
        "host": host,
        "cpus": 2.0,
        "cpus_used": 1.5,
        "memory": 24 * 1024**3,
        "memory_used": 1024**2,
        "executors": 3,
    }
    return {
        "cluster": {"name": name, "address": "tls://127.0.0.1:4000"},
        "nodes": [dict(node) for _ in range(nodes)],
        "tasks": {"running": 1, "queued": 2, "finished": 120, "failed": 3},
        "actors": [{"state": "alive"}, {"state": "dead"}],
    }


def test_it_says_what_there_is() -> None:
    for text in (parse(render_html(snapshot(), "embedded")).text, render_text(snapshot(), "embedded")):
        assert "bold-heron" in text
        assert "embedded, TLS, 1 node; tasks: 1 running, 2 queued, 120 finished, 3 failed; 1 actor" in text
        for part in ("127.0.0.1", "1.5 of 2", "1.0 MiB of 24.0 GiB", "3"):
            assert part in text


@pytest.mark.parametrize("place", ["name", "host", "kind"])
def test_what_others_chose_is_text_and_not_markup(place: str) -> None:
    shown = snapshot(name=EVIL) if place == "name" else snapshot(host=EVIL if place == "host" else "127.0.0.1")
    tags = parse(render_html(shown, EVIL if place == "kind" else "embedded"))
    assert "script" not in tags.seen
    assert EVIL in tags.text


@pytest.mark.parametrize("nodes", [0, 1, 3])
def test_it_has_no_scripts_ids_handlers_or_outside_resources(nodes: int) -> None:
    html = render_html(snapshot(nodes=nodes), "embedded")
    tags = parse(html)
    assert tags.seen <= {"style", "div", "h4", "p", "table", "thead", "tbody", "tr", "th", "td"}
    assert tags.attributes <= {"class", "role", "aria-label", "scope"}
    assert "url(" not in html and "@import" not in html and "http" not in html
    assert html.count("<tr>") == (nodes + 1 if nodes else 0)


def test_a_cluster_that_does_not_answer_is_said_not_to() -> None:
    gone = {"cluster": {"name": EVIL, "address": "tls://127.0.0.1:4000"}, "nodes": None}
    tags = parse(render_html(gone, "embedded"))
    assert "script" not in tags.seen and "does not answer" in tags.text
    assert render_text(gone, "embedded") == f"shoal cluster {EVIL}: does not answer"


def test_a_cluster_without_tls_says_so() -> None:
    plain = snapshot(nodes=2)
    plain["cluster"]["address"] = "tcp://127.0.0.1:4000"
    assert "no TLS, 2 nodes" in render_text(plain, "attached")
