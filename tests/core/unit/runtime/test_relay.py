"""Questions that are passed on: each is answered once, by whom it was for."""

from __future__ import annotations

from typing import Any

from shoal.model.messages import Answer, Ask
from shoal.runtime.relay import PATIENCE, Relay


class Scene:
    """A relay, what it has sent to whom, and what it has replied."""

    def __init__(self, *there: str) -> None:
        self.there = set(there)
        self.now = 0.0
        self.sent: list[tuple[str, Any]] = []
        self.replies: list[tuple[str, Any, str]] = []
        self.relay = Relay(self._send)

    def _send(self, target: str, message: Any) -> bool:
        if target in self.there:
            self.sent.append((target, message))
        return target in self.there

    def ask(self, who: str, target: str) -> None:
        question = Ask(1, "topic", (2,), target)
        self.relay.ask(question, lambda value, failed: self.replies.append((who, value, failed)), self.now)


def test_answers_find_who_asked() -> None:
    scene = Scene("a", "b")
    scene.ask("me", "a")
    scene.ask("you", "b")
    (_, first), (_, second) = scene.sent
    assert (first.topic, first.details, first.target) == ("topic", (2,), "")
    scene.relay.answered("b", Answer(second.request, "for you"))
    scene.relay.answered("a", Answer(first.request, None, "it cannot"))
    assert scene.replies == [("you", "for you", ""), ("me", None, "it cannot")]


def test_nobody_answers_for_another_nor_twice() -> None:
    scene = Scene("a", "b")
    scene.ask("me", "a")
    request = scene.sent[0][1].request
    scene.relay.answered("b", Answer(request, "no"))
    assert scene.replies == []
    scene.relay.answered("a", Answer(request, "yes"))
    scene.relay.answered("a", Answer(request, "again"))
    assert scene.replies == [("me", "yes", "")]


def test_who_is_not_there_or_leaves_is_told() -> None:
    scene = Scene("a")
    scene.ask("me", "nowhere")
    scene.ask("you", "a")
    scene.relay.gone("a")
    assert [(who, value) for who, value, _ in scene.replies] == [("me", None), ("you", None)]
    assert all("not in this cluster" in failed for _, _, failed in scene.replies)


def test_nobody_waits_for_ever_for_who_is_there_and_says_nothing() -> None:
    scene = Scene("a")
    scene.ask("me", "a")
    scene.now = 1.0
    scene.ask("you", "a")
    scene.now = PATIENCE - 0.5
    scene.ask("them", "a")
    assert scene.replies == []
    scene.now = PATIENCE
    scene.ask("us", "a")
    assert [who for who, _, _ in scene.replies] == ["me"] and "gave no answer" in scene.replies[0][2]
    scene.relay.answered("a", Answer(scene.sent[0][1].request, "too late"))
    scene.relay.answered("a", Answer(scene.sent[1][1].request, "in time"))
    assert [(who, value) for who, value, _ in scene.replies] == [("me", None), ("you", "in time")]
