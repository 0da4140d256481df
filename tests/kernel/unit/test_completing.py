"""What Tab offers after ``%remote`` and ``%%remote``."""

from __future__ import annotations

import argparse
import dataclasses
import threading
from collections.abc import Callable, Iterator, Sequence

import pytest
from IPython.core.completer import CompletionContext, CompletionSplitter
from IPython.core.interactiveshell import InteractiveShell

import shoal
from shoal_kernel import completing
from shoal_kernel.completing import Answer, Completing


@dataclasses.dataclass(frozen=True)
class Command:
    help: str
    argument: str = ""
    options: dict[str, bool] = dataclasses.field(default_factory=dict)


COMMANDS = {
    "status": Command("what the cluster is doing"),
    "up": Command("start", options={"--num-cpus": True}),
    "cancel": Command("stop a cell", "ID", {"--force": False}),
}


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser()
    made.add_argument("--on", help="Where.")
    made.add_argument("--each", action="append")
    made.add_argument("-o", "--out")
    made.add_argument("--actor")
    made.add_argument("--bg", action="store_true", help="Let it run.")
    return made


@pytest.fixture
def completing_(monkeypatch: pytest.MonkeyPatch) -> Completing:
    """Without jedi IPython itself completes expressions after the magic, and only ours is left here."""
    monkeypatch.setattr(InteractiveShell.instance().Completer, "use_jedi", False)
    return make()


def make(
    ids: Callable[[], Sequence[str]] = lambda: ["cell-1", "cell-2", "other"],
    names: Callable[[str, float], Sequence[str]] = lambda actor, limit: [f"{actor}_model", "data"],
) -> Completing:
    return Completing(InteractiveShell.instance(), parser(), COMMANDS, ids, names)


@pytest.fixture
def inline() -> Iterator[None]:
    """A cluster that is no process."""
    with shoal.init(inline=True):
        yield


def context(text: str) -> CompletionContext:
    """The cursor is at the end of *text*, or at its ``|``."""
    before, _, _ = text.partition("|")
    line = before.count("\n")
    column = len(before.rpartition("\n")[2])
    full = text.replace("|", "", 1)
    token = CompletionSplitter().split_line(full.split("\n")[line], column)
    return CompletionContext(token=token, full_text=full, cursor_position=column, cursor_line=line, limit=None)


def complete(completing: Completing, text: str) -> list[str]:
    return [found.text for found in completing.match(context(text))["completions"]]


OPTIONS = ["--on", "--each", "-o", "--out", "--actor", "--bg"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("%%remote |", OPTIONS),
        ("%%remote |\nx = 1", OPTIONS),
        ("\n%%remote --o|", ["--on", "--out"]),
        ("%%remote -o|", ["-o"]),
        ("%%remote --bg --|", ["--on", "--each", "--out", "--actor"]),
        ("%%remote --out x --|", ["--on", "--each", "--actor", "--bg"]),
        ('%%remote --each "x in [1, 2]" --e|', ["--each"]),
        ('%%remote --each "x in |', []),
        ("%%remote --out |", []),
        ("%%remote --out=|", []),
        ("%%remote --on a|", ["any", "all"]),
        ("%%remote --on=an|", ["any"]),
        ("%%remote --zzz|", []),
        ("%%remote code |", []),
        ("%remote |", [*COMMANDS, *OPTIONS]),
        ("%remote st|", ["status"]),
        ("  x = %remote --b|", ["--bg"]),
        ("x, y[0] = %remote s|", ["status"]),
        ("%remote --bg |", ["--on", "--each", "-o", "--out", "--actor"]),
        ("%remote up |", ["--num-cpus"]),
        ("%remote up --num-cpus |", []),
        ("%remote up --num-cpus 2 |", []),
        ("%remote cancel --|", ["--force"]),
        ("%remote model.|", []),
        ("for x in y:\n    %remote --b|", ["--bg"]),
        ("%%remote|", []),
        ("%%remotely |", []),
        ("%%time\n%%remote |", []),
        ("x = 1\n%%remote |", []),
        ("'%remote |", []),
        ("%%remote\nx.|", []),
        ("%%remote --bg\nda|", []),
        ("", []),
    ],
)
def test_without_a_cluster(completing_: Completing, text: str, expected: list[str]) -> None:
    assert complete(completing_, text) == expected
    assert not shoal.is_initialized()


def test_each_has_its_description(completing_: Completing) -> None:
    found = completing_.match(context("%remote |"))
    kinds = {completion.text: completion.type for completion in found["completions"]}
    assert kinds["status"] == "what the cluster is doing" and kinds["--bg"] == "Let it run" and kinds["--out"] is None


def test_only_options_where_nothing_else_can_stand(completing_: Completing) -> None:
    assert completing_.match(context("%%remote --o"))["suppress"] is True
    assert completing_.match(context("%remote --o"))["suppress"] is True
    assert completing_.match(context("%remote s"))["suppress"] is False


@pytest.mark.usefixtures("inline")
def test_with_a_cluster(completing_: Completing) -> None:
    assert complete(completing_, "%remote cancel cell-") == ["cell-1", "cell-2"]
    assert complete(completing_, "%remote cancel cell-1 ") == ["--force"]
    node = shoal.nodes()[0]
    on = complete(completing_, "%%remote --on ")
    assert on[:3] == ["any", "all", "0"]
    assert set(on[3:]) == {
        f"host:{value}" if key == "host" else f"label:{key}={value}" for key, value in node.labels.items()
    }
    for value in on:
        assert value in complete(completing_, f"%%remote --on {value[:-1]}")


@pytest.mark.usefixtures("inline")
def test_remote_variables_in_the_body(completing_: Completing) -> None:
    assert complete(completing_, "%%remote --actor lab\nprint(lab|") == ["lab_model"]
    assert complete(completing_, "%%remote --bg --actor=lab --out x\n\nd|\nmore") == ["data"]
    found = completing_.match(context("%%remote --actor lab\nd"))
    assert found["suppress"] is False and found["matched_fragment"] == "d"
    assert complete(completing_, "%%remote --actor lab\ndata.sh|") == []
    assert complete(completing_, "%%remote --actor\nd|") == []


@pytest.mark.usefixtures("inline")
def test_what_raises_completes_nothing() -> None:
    def fail(*_: object) -> list[str]:
        raise RuntimeError("no")

    broken = make(fail, fail)
    assert complete(broken, "%remote cancel ") == ["--force"]
    assert complete(broken, "%%remote --actor lab\nx") == []


@pytest.mark.usefixtures("inline")
def test_a_slow_cluster_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(completing, "TIME_LIMIT", 0.01)
    answered = threading.Event()
    asked: list[int] = []

    def ask() -> list[str]:
        asked.append(1)
        answered.wait()
        return ["late"]

    answer = Answer(ask)
    assert answer.get() == answer.get() == ()
    assert len(asked) == 1
    answered.set()
    monkeypatch.setattr(completing, "TIME_LIMIT", 10.0)
    assert answer.get() == ["late"] and answer.get() == ["late"] and len(asked) == 1
    monkeypatch.setattr(completing, "FRESH", 0.0)
    assert answer.get() == ["late"] and len(asked) == 2


def test_it_comes_and_goes(completing_: Completing) -> None:
    shell = InteractiveShell.instance()
    before = list(shell.Completer.custom_matchers)
    completing_.start()
    assert len(shell.Completer.custom_matchers) == len(before) + 1
    completing_.stop()
    assert shell.Completer.custom_matchers == before
