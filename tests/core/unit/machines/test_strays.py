"""Segments whose owner is asked whether it knows them."""

from __future__ import annotations

from shoal.machines.strays import GRACE, MAX_PAUSE, Strays


def test_a_segment_is_shown_after_a_while_and_then_ever_more_rarely() -> None:
    strays = Strays()
    names = ["driver-1.obj-1", "driver-1.task-2.0", "exec-1.obj-3"]
    assert strays.look(names, 0.0) == {}
    assert strays.look(names, GRACE - 1) == {}
    assert strays.look([*names, "driver-2.obj-4"], GRACE) == {
        "driver-1": ["driver-1.obj-1", "driver-1.task-2.0"],
        "exec-1": ["exec-1.obj-3"],
    }
    assert strays.look([*names, "driver-2.obj-4"], GRACE + 1) == {}
    assert strays.look(["driver-2.obj-4"], 2 * GRACE) == {"driver-2": ["driver-2.obj-4"]}
    times = [now for now in range(41, 10_000) if strays.look(["driver-2.obj-4"], now)]
    pauses = [after - before for before, after in zip([2 * GRACE, *times], times, strict=False)]
    assert pauses[:3] == [2 * GRACE, 4 * GRACE, 8 * GRACE]
    assert pauses == sorted(pauses)
    assert pauses[-1] == MAX_PAUSE


def test_what_has_gone_is_forgotten() -> None:
    strays = Strays()
    strays.look(["driver-1.obj-1"], 0.0)
    strays.look([], GRACE)
    assert strays.look(["driver-1.obj-1"], GRACE + 1) == {}, "another of the same name begins anew"
