"""The object table: who holds which object, and when it is freed."""

from __future__ import annotations

import threading

from hypothesis import given
from hypothesis import strategies as st

from shoal.machines.objects import Action, Entry, Free, LetGo, ObjectTable

VALUE = ("i", b"value")


def test_an_owned_object_is_freed_with_its_last_ref() -> None:
    table = ObjectTable()
    table.add("obj-1", VALUE)
    table.retain("obj-1", "")
    assert table.release("obj-1") == []
    assert table.release("obj-1") == [Free("obj-1", VALUE)]
    assert table.release("obj-1") == []
    assert "obj-1" not in table and len(table) == 0


def test_a_borrower_keeps_the_object_until_it_lets_go() -> None:
    table = ObjectTable()
    table.add("obj-1", VALUE)
    table.borrow("obj-1", "exec-1", 1)
    assert table.release("obj-1") == []
    assert table.borrow("obj-1", "exec-1", -1) == [Free("obj-1", VALUE)]


def test_letting_go_may_overtake_the_word_of_the_borrow() -> None:
    table = ObjectTable()
    table.add("obj-1", VALUE)
    assert table.borrow("obj-1", "exec-1", -1) == []
    assert table.release("obj-1") == []
    assert table.borrow("obj-1", "exec-1", 1) == [Free("obj-1", VALUE)]


def test_a_borrower_that_is_gone_holds_nothing() -> None:
    table = ObjectTable()
    for number in range(3):
        table.add(f"obj-{number}", VALUE)
        table.borrow(f"obj-{number}", "exec-1", 2)
        table.release(f"obj-{number}")
    table.borrow("obj-2", "exec-2", 1)
    assert table.borrower_gone("exec-1") == [Free("obj-0", VALUE), Free("obj-1", VALUE)]
    assert "obj-2" in table


def test_words_about_objects_that_are_gone_are_harmless() -> None:
    table = ObjectTable()
    assert table.borrow("obj-9", "exec-1", 1) == []
    assert table.release("obj-9") == []
    assert table.borrower_gone("exec-1") == []
    assert not table.ready("obj-9", VALUE)
    assert table.get("obj-9") is None


def test_a_borrowed_object_is_let_go_with_its_last_ref() -> None:
    table = ObjectTable()
    assert table.retain("obj-1", "owner")
    assert not table.retain("obj-1", "owner")
    assert table.release("obj-1") == []
    assert table.release("obj-1") == [LetGo("obj-1", "owner", 1)]


def test_a_borrow_that_the_owner_never_heard_of_ends_in_silence() -> None:
    table = ObjectTable()
    table.retain("obj-1", "owner", brought_by="task-1")
    assert table.release("obj-1") == []
    assert len(table) == 0


def test_borrows_that_outlive_their_task_are_counted_once() -> None:
    table = ObjectTable()
    table.retain("obj-1", "owner", brought_by="task-1")
    table.retain("obj-2", "owner")
    assert [entry.object_id for entry in table.count_uncounted("task-1")[0]] == ["obj-1"]
    assert table.count_uncounted("task-1") == ([], [])
    assert table.release("obj-1") == [LetGo("obj-1", "owner", 1)]


def test_each_task_tells_of_what_it_has_brought() -> None:
    table = ObjectTable()
    table.retain("obj-1", "owner", brought_by="task-1")
    table.retain("obj-1", "owner", brought_by="task-2")
    assert table.count_uncounted("task-2") == ([], [])
    assert [entry.object_id for entry in table.count_uncounted("task-1")[0]] == ["obj-1"]


def test_what_a_task_has_passed_on_is_counted_even_if_it_holds_it_no_more() -> None:
    table = ObjectTable()
    table.retain("obj-1", "owner", brought_by="task-1")
    table.pass_on("obj-1")
    assert table.release("obj-1") == []
    found, actions = table.count_uncounted("task-1")
    assert [entry.object_id for entry in found] == ["obj-1"]
    assert actions == [LetGo("obj-1", "owner", 1)]
    assert len(table) == 0


def test_what_the_owner_counts_twice_is_let_go_twice_at_the_end() -> None:
    table = ObjectTable()
    table.retain_counted("obj-1", "owner")
    table.retain_counted("obj-1", "owner")
    assert table.release("obj-1") == []
    assert table.release("obj-1") == [LetGo("obj-1", "owner", 2)]


def test_an_owner_that_is_gone_is_told_nothing() -> None:
    table = ObjectTable()
    table.retain("obj-1", "owner")
    table.owner_gone("owner")
    assert table.release("obj-1") == []
    assert len(table) == 0


def test_nobody_is_counted_for_what_came_back_after_its_release() -> None:
    table = ObjectTable()
    assert table.retain("obj-1", "")
    assert table.borrow("obj-1", "exec-1", -1) == []
    assert table.release("obj-1") == [Free("obj-1", None)]


def test_a_value_comes_once() -> None:
    table = ObjectTable()
    entry = table.add("obj-1")
    assert table.ready("obj-1", VALUE, contained=["ref"])
    assert not table.ready("obj-1", ("i", b"another"))
    assert entry.payload == VALUE
    assert entry.contained == ("ref",)


def test_waiters_are_called_once_whenever_they_come() -> None:
    table = ObjectTable()
    entry = table.add("obj-1")
    called: list[str] = []
    table.when_ready(entry, lambda _: called.append("early"))
    assert called == []
    table.ready("obj-1", VALUE)
    table.when_ready(entry, lambda _: called.append("late"))
    assert called == ["early", "late"]


def test_a_forgotten_waiter_is_not_called() -> None:
    table = ObjectTable()
    entry = table.add("obj-1")
    called: list[Entry] = []
    table.when_ready(entry, called.append)
    table.forget_waiter(entry, called.append)
    table.forget_waiter(entry, called.append)
    table.ready("obj-1", VALUE)
    assert called == []


def test_an_id_that_is_used_again_is_another_object() -> None:
    table = ObjectTable()
    table.retain("obj-1", "owner")
    table.release("obj-1")
    assert table.retain("obj-1", "owner"), "the owner has to be told anew"


class AddsWhenHashed(str):
    """A borrower during whose look-up another thread makes an object."""

    table: ObjectTable

    def __hash__(self) -> int:
        thread = threading.Thread(target=self.table.add, args=(f"obj-{threading.get_ident()}-{len(self.table)}",))
        thread.start()
        thread.join(0.02)  # it may have to wait for the table's lock, and ends when we let go of that
        self.threads.append(thread)
        return str.__hash__(self)

    def __init__(self, *_: object) -> None:
        self.threads: list[threading.Thread] = []


def test_objects_can_be_made_while_a_borrower_goes() -> None:
    table = ObjectTable()
    for number in range(3):
        table.add(f"obj-{number}")
    borrower = AddsWhenHashed("exec-1")
    borrower.table = table
    try:
        assert table.borrower_gone(borrower) == []
    finally:
        for thread in borrower.threads:
            thread.join()


COMMANDS = st.lists(
    st.one_of(
        st.tuples(st.just("retain"), st.just(0)),
        st.tuples(st.just("release"), st.just(0)),
        st.tuples(st.sampled_from(["hand over", "hear"]), st.integers(0, 2)),
        st.tuples(st.just("gone"), st.integers(0, 2)),
    ),
    max_size=40,
)


@given(COMMANDS)
def test_an_object_is_freed_exactly_when_nobody_holds_it(commands: list[tuple[str, int]]) -> None:
    """Against a model: a count of local refs, and a balance for each borrower."""
    table = ObjectTable()
    table.add("obj-1", VALUE)
    local, balance = 1, {0: 0, 1: 0, 2: 0}
    freed: list[Action] = []
    for command, who in commands:
        if command == "retain" and local:
            table.retain("obj-1", "")
            local += 1
        elif command == "release" and local:
            local -= 1
            freed += table.release("obj-1")
        elif command == "hand over":
            balance[who] += 1
            freed += table.borrow("obj-1", f"exec-{who}", 1)
        elif command == "hear":
            balance[who] -= 1
            freed += table.borrow("obj-1", f"exec-{who}", -1)
        elif command == "gone":
            balance[who] = 0
            freed += table.borrower_gone(f"exec-{who}")
        held = local > 0 or any(balance.values())
        assert freed == ([] if held else [Free("obj-1", VALUE)])
        if not held:
            return
