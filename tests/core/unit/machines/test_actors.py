"""The actor directory: lives, names, and who is told."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from shoal.machines.actors import MAX_DEAD, ActorDirectory, Changed, Name, Place, Tell, Unplace, as_claimed
from shoal.model.messages import ActorAlive, ActorDead, ActorRestarting, CreateActor

KEY = ("", "counter")


def request(actor_id: str = "a", *, max_restarts: int = 0, detached: bool = False, name: str = "") -> CreateActor:
    return CreateActor(
        actor_id, ((), (False, "", False, (), "", -1), 0), "Class", name, detached, max_restarts, b"init"
    )


def alive(directory: ActorDirectory, actor_id: str = "a", *, by: str = "owner", **options: object) -> None:
    directory.create(by, "job", request(actor_id, **options))  # type: ignore[arg-type]
    directory.placed(actor_id, f"lease-{actor_id}")
    directory.created(actor_id, "node", "exec", "addr", ())
    directory.flush()


def told(directory: ActorDirectory) -> list[tuple[tuple[str, ...], object]]:
    return [(action.owner_ids, action.message) for action in directory.flush() if isinstance(action, Tell)]


def test_a_life_from_wish_to_death() -> None:
    directory = ActorDirectory()
    directory.create("owner", "job", request())
    assert [type(action) for action in directory.flush()] == [Place]
    directory.placed("a", "lease")
    directory.created("a", "node", "exec", "addr", ())
    assert directory.flush() == [
        Tell(("owner",), ActorAlive("a", "node", "exec", "addr")),
        Changed("a", "alive", "node"),
    ]
    directory.kill("a", "it was killed", restart=False)
    assert directory.flush() == [
        Unplace("a", "lease"),
        Tell(("owner",), ActorDead("a", "it was killed", "", ())),
        Changed("a", "dead"),
    ]
    assert not directory.actors and directory.find_dead("a").cause == "it was killed"  # type: ignore[union-attr]


def test_an_init_that_raises_is_the_end_and_not_a_crash() -> None:
    directory = ActorDirectory()
    directory.create("owner", "job", request(max_restarts=-1))
    directory.placed("a", "lease")
    directory.created("a", "node", "exec", "addr", ("e", b"error"))
    ((owners, message),) = told(directory)
    assert owners == ("owner",) and message == ActorDead("a", "its `__init__` raised an exception", "", ("e", b"error"))


def test_restarts_are_counted_and_watchers_hear_of_each() -> None:
    directory = ActorDirectory()
    alive(directory, max_restarts=1)
    directory.watch("other", "a")
    directory.lost("a", "lease-a", "it crashed", "")
    actions = directory.flush()
    assert Tell(("owner", "other"), ActorRestarting("a", "it crashed")) in actions
    assert any(isinstance(action, Place) for action in actions)
    directory.lost("a", "lease-a", "again", "")  # news of the same death
    assert directory.actors["a"].state == "restarting" and directory.flush() == []
    directory.placed("a", "lease-2")
    directory.created("a", "node-2", "exec-2", "addr-2", ())
    directory.lost("a", "lease-2", "it crashed", "last words")
    assert told(directory)[-1] == (("owner", "other"), ActorDead("a", "it crashed", "last words", ()))


def test_a_kill_with_restart_is_a_crash_like_any_other() -> None:
    directory = ActorDirectory()
    alive(directory, max_restarts=1)
    directory.kill("a", "it was killed", restart=True)
    actions = directory.flush()
    assert Unplace("a", "lease-a") in actions and any(isinstance(action, Place) for action in actions)
    directory.kill("a", "it was killed", restart=True)
    assert directory.actors["a"].state == "restarting", "it has no process to end"


def test_who_comes_late_hears_what_there_is_to_hear() -> None:
    directory = ActorDirectory()
    alive(directory)
    directory.watch("late", "a")
    assert told(directory) == [(("late",), ActorAlive("a", "node", "exec", "addr"))]
    directory.kill("a", "it was killed", restart=False)
    directory.flush()
    directory.watch("later", "a")
    assert told(directory) == [(("later",), ActorDead("a", "it was killed", "", ()))]
    directory.watch("later", "b")
    assert told(directory)[0][1].cause == "this cluster knows no such actor"  # type: ignore[attr-defined]


def test_actors_end_with_their_owner_and_detached_ones_do_not() -> None:
    directory = ActorDirectory()
    alive(directory, "a")
    alive(directory, "b", detached=True)
    directory.owner_gone("owner")
    assert set(directory.actors) == {"b"} and directory.actors["b"].watchers == {}


@pytest.mark.parametrize("policy", ["error", "keep"])
def test_a_name_that_is_taken_stays_with_who_has_it(policy: str) -> None:
    directory = ActorDirectory()
    first = Name("a", "owner", b"", ("", ""))
    assert directory.claim_name(KEY, first, policy) is first
    assert directory.claim_name(KEY, Name("b", "other", b"", ("", "")), policy) is first


def test_a_name_can_be_taken_over_and_the_other_ends() -> None:
    directory = ActorDirectory()
    directory.claim_name(KEY, Name("a", "owner", b"", ("", "")), "error")
    alive(directory, "a", name="counter")
    second = Name("b", "owner", b"", ("", ""))
    assert directory.claim_name(KEY, second, "replace") is second
    assert told(directory) == [(("owner",), ActorDead("a", "another took its place", "", ()))]
    assert directory.find(KEY) is second and directory.find(("elsewhere", "counter")) is None


def test_a_claim_goes_with_its_claimer_unless_there_is_an_actor() -> None:
    directory = ActorDirectory()
    directory.claim_name(KEY, Name("a", "owner", b"", ("", "")), "error")
    directory.owner_gone("owner")
    assert directory.names == {}
    directory.claim_name(KEY, Name("b", "owner", b"", ("", "")), "error")
    alive(directory, "b", detached=True)
    directory.owner_gone("owner")
    assert as_claimed(1, directory.find(KEY)).holder == "b"
    assert as_claimed(2, None).holder == ""


def test_the_dead_are_remembered_for_a_while() -> None:
    directory = ActorDirectory()
    for number in range(MAX_DEAD + 10):
        directory.create("owner", "job", request(f"a{number}"))
        directory.kill(f"a{number}", "enough", restart=False)
    assert directory.find_dead("a9") is None and directory.find_dead("a10") is not None


class Directory(RuleBasedStateMachine):
    """Any order of events: states stay consistent, and a dead actor stays dead."""

    actors = st.sampled_from(["a", "b", "c"])

    @initialize()
    def start(self) -> None:
        self.directory = ActorDirectory()
        self.created: set[str] = set()
        self.dead: set[str] = set()
        self.number = 0

    @rule(actor=actors, restarts=st.integers(-1, 2), detached=st.booleans(), owner=st.sampled_from(["x", "y"]))
    def create(self, actor: str, restarts: int, detached: bool, owner: str) -> None:
        if actor not in self.created:
            self.created.add(actor)
            self.directory.create(owner, "job", request(actor, max_restarts=restarts, detached=detached))

    @rule(actor=actors)
    def place(self, actor: str) -> None:
        if actor in self.directory.actors and not self.directory.actors[actor].lease_id:
            self.number += 1
            self.directory.placed(actor, f"lease-{self.number}")

    @rule(actor=actors, error=st.booleans())
    def init(self, actor: str, error: bool) -> None:
        self.directory.created(actor, "node", "exec", "addr", ("e", b"") if error else ())

    @rule(actor=actors, right=st.booleans())
    def lose(self, actor: str, right: bool) -> None:
        known = self.directory.actors.get(actor)
        self.directory.lost(actor, known.lease_id if known is not None and right else "lease-0", "it crashed", "")

    @rule(actor=actors, restart=st.booleans())
    def kill(self, actor: str, restart: bool) -> None:
        self.directory.kill(actor, "it was killed", restart=restart)

    @rule(actor=actors, owner=st.sampled_from(["x", "y", "z"]))
    def watch(self, actor: str, owner: str) -> None:
        self.directory.watch(owner, actor)

    @rule(actor=actors, policy=st.sampled_from(["error", "keep", "replace"]), owner=st.sampled_from(["x", "y"]))
    def claim(self, actor: str, policy: str, owner: str) -> None:
        if actor not in self.created:
            self.directory.claim_name(("", "name-" + actor), Name(actor, owner, b"", ("", "")), policy)

    @rule(owner=st.sampled_from(["x", "y"]))
    def owner_gone(self, owner: str) -> None:
        self.directory.owner_gone(owner)
        assert all(actor.owner_id != owner for actor in self.directory.actors.values())

    @precondition(lambda self: self.created)
    @rule()
    def flush(self) -> None:
        for action in self.directory.flush():
            if isinstance(action, Changed) and action.state == "dead":
                assert action.actor_id not in self.dead, "it dies once"
                self.dead.add(action.actor_id)
        assert not self.dead & set(self.directory.actors)

    @invariant()
    def consistent(self) -> None:
        if hasattr(self, "directory"):
            self.directory.validate()


TestAnyOrderOfEvents = Directory.TestCase
