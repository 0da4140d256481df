"""The text and the HTML of what a notebook shows."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest

from shoal.model.description import Description, describe_safely
from shoal.model.explanation import Explanation

EVIL = '<script>alert("x")</script>&'
FULL = Description(
    "ref obj-1",
    "ready",
    (("size", "8 MiB"), ("place", "memory")),
    ("node", "CPUs"),
    (("node-1", "2"), ("a longer one", "16")),
    ("a note",),
)


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()
        self.attributes: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        self.text += data


def parse(html: str) -> Tags:
    tags = Tags()
    tags.feed(html)
    tags.close()
    return tags


def test_text_is_complete_and_aligned() -> None:
    assert FULL.text.splitlines() == [
        "ref obj-1: ready",
        "  size: 8 MiB",
        "  place: memory",
        "  node          CPUs",
        "  node-1        2",
        "  a longer one  16",
        "  a note",
    ]


def test_html_says_the_same_without_scripts_ids_or_outside_resources() -> None:
    tags = parse(FULL.html)
    for part in ("ref obj-1", "ready", "size", "8 MiB", "node-1", "a longer one", "16", "a note"):
        assert part in tags.text
    assert tags.seen <= {"style", "div", "p", "span", "table", "thead", "tbody", "tr", "th", "td"}
    assert tags.attributes <= {"class", "role", "aria-label", "scope"}
    assert "url(" not in FULL.html and "@import" not in FULL.html and "http" not in FULL.html


def test_what_others_chose_is_text_and_not_markup() -> None:
    evil = Description(EVIL, EVIL, ((EVIL, EVIL),), (EVIL,), ((EVIL,),), (EVIL,))
    tags = parse(evil.html)
    assert "script" not in tags.seen
    assert tags.text.count(EVIL) == 7


def test_what_cannot_be_described_says_why() -> None:
    def describe() -> Description:
        raise ValueError("nobody is there\nin detail")

    bundle = describe_safely(describe, "ref obj-1")
    assert bundle["text/plain"] == "ref obj-1: unknown\n  reason: nobody is there"
    assert "nobody is there" in bundle["text/html"]


@pytest.mark.parametrize("kind", ["text/plain", "text/html"])
def test_an_explanation_shows_its_tree_and_what_would_help(kind: str) -> None:
    cause = Explanation("actor `A`", "runs", "on node-1", "end it")
    shown = Explanation("`f` (task-1)", "needs resources", causes=(cause,))._repr_mimebundle_()[kind]
    text = parse(shown).text if kind == "text/html" else shown
    for part in ("`f` (task-1)", "needs resources", "actor `A`", "runs", "on node-1", "What would help: end it"):
        assert part in text
    assert text.index("needs resources") < text.index("actor `A`") < text.index("What would help")
