"""A cell that defines and starts a named actor, run again and again, as people do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

Kernel = Any

CELL = """
@shoal.remote(name="counter"{options})
class Counter:
    def __init__(self):
        self.n = 0

    def add(self):
        self.n += {step}
        return self.n

counter = Counter.remote()
shoal.get(counter.add.remote())
"""
ALIVE = "[row['name'] for row in shoal.snapshot()['actors'] if row['state'] == 'alive']"


def wait_for(kernel: Kernel, condition: str) -> None:
    kernel.ok(f"end = time.monotonic() + 15\nwhile not ({condition}) and time.monotonic() < end: time.sleep(0.02)")
    assert kernel.ok(condition).value == "True"


@pytest.fixture(autouse=True)
def nothing_left(kernel: Kernel) -> Iterator[None]:
    yield
    kernel.ok("import gc\nfor name in ('counter', 'Counter'): globals().pop(name, None)\nOut.clear(); gc.collect();")
    wait_for(kernel, f"{ALIVE} == []")


def run(kernel: Kernel, step: int, options: str) -> Any:
    return kernel.run(CELL.format(step=step, options=options))


def test_replace_takes_the_new_code_and_ends_the_old_actor(kernel: Kernel) -> None:
    for step in (1, 10, 100):
        assert run(kernel, step, ', on_redefine="replace"').value == str(step)  # new code, fresh state
        wait_for(kernel, f"{ALIVE} == ['counter']")


def test_keep_returns_the_actor_that_is_there(kernel: Kernel) -> None:
    assert [run(kernel, step, ', on_redefine="keep"').value for step in (1, 10, 100)] == ["1", "2", "3"]
    wait_for(kernel, f"{ALIVE} == ['counter']")


def test_by_default_the_second_run_says_what_to_do(kernel: Kernel) -> None:
    assert run(kernel, 1, "").value == "1"
    error = run(kernel, 10, "").error
    assert "NameTakenError" in error and 'on_redefine="replace"' in error
    assert kernel.ok("shoal.get(counter.add.remote())").value == "2"
    wait_for(kernel, f"{ALIVE} == ['counter']")


def test_an_actor_without_a_name_ends_when_its_cell_is_run_again(kernel: Kernel) -> None:
    cell = CELL.replace('name="counter"', "num_cpus=0")
    for step in (1, 10, 100):
        assert kernel.run(cell.format(step=step, options="")).value == str(step)
    wait_for(kernel, f"len({ALIVE}) == 1")
