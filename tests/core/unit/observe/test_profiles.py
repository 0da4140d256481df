"""Profiles: reading, counting, and what is made of them."""

from __future__ import annotations

import json
from html.parser import HTMLParser

import pytest

from shoal.api.probing import Profile
from shoal.observe.flame_graph import to_html
from shoal.observe.profiles import Samples, from_collapsed, functions_of, pack_stacks, to_speedscope, tree_of

COLLAPSED = """\
MainThread;train (/home/me/a b.py:10);step (/home/me/a b.py:22);dot (numpy/core.py:3) 30
train (/home/me/a b.py:10);step (/home/me/a b.py:23) 10
train (/home/me/a b.py:11) 8
<module> (<ipython-input-3>:1);again (x.py:1);again (x.py:2);again (x.py:1) 2

"""


def make(text: str = COLLAPSED, looks: int = 100, seconds: float = 10.0) -> Samples:
    frames, stacks = pack_stacks(from_collapsed(text))
    return Samples(seconds, 10.0, looks, 0, frames, stacks, "py-spy")


def test_collapsed_stacks_are_read() -> None:
    counts = from_collapsed(COLLAPSED)
    assert counts[("train", "/home/me/a b.py", 11),] == 8
    assert counts[("train", "/home/me/a b.py", 10), ("step", "/home/me/a b.py", 23)] == 10
    assert next(iter(counts))[0] == ("MainThread", "", 0)
    assert from_collapsed("no count\n;\n") == {}


def test_samples_travel_as_plain_values() -> None:
    samples = make()
    assert Samples.from_wire(json.loads(json.dumps(samples))) == samples
    assert samples.busy == 50
    assert samples.stacks[0][1] == 30, "the most frequent first"
    with pytest.raises((TypeError, ValueError)):
        Samples.from_wire((1, 2))


def test_functions_have_time_of_their_own_and_in_all() -> None:
    rows = {row.function: row for row in functions_of(make())}
    assert (rows["dot"].own, rows["dot"].total) == (3.0, 3.0)
    assert rows["step"].own == pytest.approx(1.0) and rows["step"].total == pytest.approx(4.0)
    assert rows["train"].own == pytest.approx(0.8) and rows["train"].total == pytest.approx(4.8)
    assert rows["again"].total == pytest.approx(0.2), "a recursion counts once"
    assert (rows["train"].line, rows["step"].line) == (11, 23), "where its own time went"
    assert [row.function for row in functions_of(make())][:2] == ["dot", "step"]


def test_a_tree_has_every_sample_once() -> None:
    root = tree_of(make())
    assert root.count == 50 == sum(child.count for child in root.children.values())
    assert root.children["train", "/home/me/a b.py"].count == 18


def test_speedscope_gets_the_stacks_with_their_seconds() -> None:
    made = to_speedscope(make(), "a name")
    (profile,) = made["profiles"]
    assert len(profile["samples"]) == len(profile["weights"]) == 4
    assert profile["endValue"] == pytest.approx(sum(profile["weights"])) == pytest.approx(5.0)
    names = [made["shared"]["frames"][number]["name"] for number in profile["samples"][0]]
    assert names == ["MainThread", "train", "step", "dot"]


class Boxes(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.depth = 0

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.append(tag)
        self.depth += 1

    def handle_endtag(self, tag: str) -> None:
        self.depth -= 1


def test_the_flame_graph_stands_by_itself_and_names_are_escaped() -> None:
    html = to_html(make('evil<script>alert("x")</script> (/x"y.py:1) 5\n'), "a <title>")
    parsed = Boxes()
    parsed.feed(html)
    assert parsed.depth == 0 and not {"script", "img", "link", "title", "style"} & set(parsed.tags)
    assert "&lt;script&gt;" in html and "http" not in html
    assert len(to_html(make("".join(f"f{n} (x.py:{n}) 1\n" for n in range(5_000))), "")) < 200_000


def test_a_profile_of_nothing_says_so(tmp_path) -> None:
    profile = Profile(make("", looks=0), "nobody")
    assert "no thread was at work" in repr(profile) and "No thread was at work" in profile.html
    assert profile.top() == []
    assert json.loads(profile.speedscope(tmp_path / "p.json").read_text())["profiles"][0]["samples"] == []


def test_a_profile_reads_as_a_table() -> None:
    text = repr(Profile(make(), "actor `a`"))
    assert "profile of actor `a`: 5.00 s of processor time in 10.0 s (100 looks by py-spy)" in text
    assert "  3.00 s   3.00 s  dot  numpy/core.py:3" in text
