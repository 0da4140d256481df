"""The live card in a real kernel: what it sends, what its controls do, and that nothing of it stays."""

from __future__ import annotations

import pytest

CARD = "[t.name for t in threading.enumerate() if t.name.startswith('shoal-card')]"
FIND = "from shoal_kernel import cluster_widget\ncard = cluster_widget._cards[shoal.init().id]"


@pytest.fixture
def card(kernel):
    """A kernel whose variable ``card`` is the card of its cluster."""
    kernel.ok("import threading\nif not shoal.is_initialized(): shoal.init(num_cpus=1)")
    kernel.ok("shoal.init()")
    kernel.ok(FIND)
    return kernel


def wait_until(kernel, expression):
    kernel.ok(
        f"import time\nend = time.monotonic() + 30\nwhile not ({expression}):\n"
        f"    assert time.monotonic() < end, (card._table.value, card._line.value)\n    time.sleep(0.02)"
    )


def test_one_card_and_one_thread_for_each_cluster(card):
    first = card.ok("shoal.init()").of_type("execute_result")[0]["data"]
    again = card.ok("shoal.init()").of_type("execute_result")[0]["data"]
    view = "application/vnd.jupyter.widget-view+json"
    assert first[view] == again[view]
    assert card.ok(CARD).value == "['shoal-card']"


def test_it_shows_tasks_while_the_kernel_waits(card):
    card.ok("ref = shoal.remote(lambda: time.sleep(600)).remote()")
    wait_until(card, "'1 running' in card._table.value")
    card.ok("shoal.cancel(ref)")
    wait_until(card, "'0 running' in card._table.value")


def test_its_box_scales_the_cluster(card):
    card.ok("card._nodes.value = 2\ncard._scale.click()")
    wait_until(card, "'There are 2 nodes now.' in card._line.value and not card._scale.disabled")
    wait_until(card, "'2 nodes' in card._table.value")
    card.ok("card._nodes.value = 1\ncard._scale.click()")
    wait_until(card, "'There is 1 node now.' in card._line.value")


def test_what_cannot_be_done_is_said_in_a_line(card):
    card.ok("card._nodes.value = 500\ncard._scale.click()")
    wait_until(card, "'role=\"alert\"' in card._line.value and '64 nodes at most' in card._line.value")
    assert card.ok("len(shoal.nodes())").value == "1"


def test_stopping_asks_first(card):
    card.ok("card._stop.click()")
    assert card.ok("card._question.layout.display").value == "''"
    card.ok("card._keep.click()")
    assert card.ok("(card._question.layout.display, shoal.is_initialized())").value == "('none', True)"
    card.ok("card._stop.click(); card._sure.click()")
    wait_until(card, "not shoal.is_initialized() and card.ended")
    wait_until(card, f"not {CARD}")
    assert card.ok("card._scale.disabled").value == "True"


def test_a_card_ends_with_the_session_and_the_next_has_another(card):
    card.ok("old = card\nshoal.shutdown()")
    assert card.ok(f"old.ended, {CARD}").value == "(True, [])"
    card.ok("shoal.init(num_cpus=1)")
    card.ok(FIND)
    assert card.ok("card is old, card.ended").value == "(False, False)"


def test_unloading_ends_the_thread_and_the_cluster_stays(card):
    card.ok("%unload_ext shoal")
    check = (
        f"{CARD}, [c for c in get_ipython().events.callbacks['pre_run_cell'] if 'card' in repr(c).lower()], "
        "shoal.is_initialized()"
    )
    assert card.ok(check).value == "([], [], True)"
    card.ok("%load_ext shoal")


def test_a_card_rests_when_nothing_happens_and_wakes_with_a_cell(card):
    card.ok("cluster_widget.PATIENCE = 0.0\ncluster_widget.IDLE_INTERVAL = 0.05")
    card.ok("looks = []\nlook = card._look\ncard._look = lambda: looks.append(1) or look()\ncard._wake.set()")
    wait_until(card, "'Nothing has happened' in card._line.value")
    card.ok("before = len(looks)")
    wait_until(card, "len(looks) > before")
