"""The stop button: what the running cell has submitted stops, whatever kind of cell it is."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Kernel = Any
Gates = Callable[[str], Any]

DEFINE = """
import time
@shoal.remote(num_cpus=0)
def endless(path):
    open(path, "a").write("b")
    try:
        while True:
            time.sleep(0.01)
    finally:
        open(path, "a").write("e")
@shoal.remote
class Counter:
    def __init__(self): self.n = 0
    def add(self):
        self.n += 1
        return self.n
    def hang(self):
        while True: time.sleep(0.01)
"""


def wait_for_file(path: Path, text: str) -> None:
    deadline = time.monotonic() + 30
    while not (path.exists() and path.read_text() == text):
        assert time.monotonic() < deadline, path.read_text() if path.exists() else "nothing"
        time.sleep(0.01)


def interrupt(kernel: Kernel, cell: str) -> Any:
    kernel.manager.interrupt_kernel()
    return kernel.finish(cell)


def test_tasks_of_an_ordinary_cell_stop_and_actors_live_on(kernel: Kernel, tmp_path: Path) -> None:
    kernel.ok(DEFINE + "counter = Counter.remote()\nother = None")
    kernel.ok("assert shoal.get(counter.add.remote()) == 1")
    path = tmp_path / "marks"
    cell = kernel.start(f"refs = [endless.remote({str(path)!r}) for _ in range(3)]\nshoal.get(refs)")
    wait_for_file(path, "bbb")
    outcome = interrupt(kernel, cell)
    assert "KeyboardInterrupt" in outcome.error
    assert "shoal: stopped 3 tasks and calls of this cell in 0." in outcome.text("stderr")
    wait_for_file(path, "bbbeee")
    assert kernel.ok("shoal.get(counter.add.remote())").value == "2"


def test_a_cell_that_awaits(kernel: Kernel, tmp_path: Path) -> None:
    """Its work stops. ipykernel cancels it when the next message comes, which it answers with "aborted"."""
    path = tmp_path / "marks"
    cell = kernel.start(f"await endless.remote({str(path)!r})")
    wait_for_file(path, "b")
    kernel.manager.interrupt_kernel()
    kernel.run("pass")
    kernel.wait_for_text("shoal: stopped 1 task or call of this cell in 0.", cell)
    wait_for_file(path, "be")
    assert kernel.ok("%%remote\n1").value == "1"


def test_other_cells_work_goes_on(kernel: Kernel, tmp_path: Path) -> None:
    theirs, mine = tmp_path / "theirs", tmp_path / "mine"
    kernel.ok(f"other = endless.remote({str(theirs)!r})")
    wait_for_file(theirs, "b")
    cell = kernel.start(f"shoal.get(endless.remote({str(mine)!r}))")
    wait_for_file(mine, "b")
    interrupt(kernel, cell)
    wait_for_file(mine, "be")
    assert theirs.read_text() == "b"
    kernel.ok("shoal.cancel(other)")


def test_a_call_of_an_actor_stops_and_its_state_stays(kernel: Kernel) -> None:
    cell = kernel.start("print('go', flush=True)\nshoal.get(counter.hang.remote())")
    kernel.wait_for_text("go", cell)
    outcome = interrupt(kernel, cell)
    assert "KeyboardInterrupt" in outcome.error
    assert kernel.ok("shoal.get(counter.add.remote(), timeout=20)").value == "3"


def test_an_ordinary_interrupt_says_nothing(kernel: Kernel) -> None:
    cell = kernel.start("print('go', flush=True)\nwhile True: time.sleep(0.01)")
    kernel.wait_for_text("go", cell)
    assert interrupt(kernel, cell).text("stderr") == ""


def test_every_run_of_a_remote_cell_stops(kernel: Kernel, gates: Gates) -> None:
    cell = kernel.start('%%remote --num-cpus 0 --each "i in range(3)"\nprint("begun")\nwhile True: time.sleep(0.01)')
    kernel.wait_for(lambda messages: len(kernel.of(cell)) > 0, cell)
    time.sleep(0.5)
    outcome = interrupt(kernel, cell)
    assert "KeyboardInterrupt: stopped 3 of 3 runs of `In[" in outcome.error
    assert kernel.ok("%%remote\n1").value == "1"


def test_what_does_not_listen_is_ended_with_its_process(kernel: Kernel) -> None:
    code = "import ctypes\nprint('begun', flush=True)\nctypes.PyDLL(None).sleep(600)"
    cell = kernel.start(f"%%remote\n{code}")
    time.sleep(1.0)
    outcome = interrupt(kernel, cell)
    assert "code that did not listen was ended with its process" in outcome.error
    assert kernel.ok("%%remote\n1").value == "1"


def test_in_an_ordinary_cell_too(kernel: Kernel) -> None:
    kernel.ok(
        "@shoal.remote\ndef deaf():\n    import ctypes\n    print('begun', flush=True)\n"
        "    ctypes.PyDLL(None).sleep(600)"
    )
    cell = kernel.start("shoal.get(deaf.remote())")
    time.sleep(1.0)
    outcome = interrupt(kernel, cell)
    assert "what did not listen was ended with its process" in outcome.text("stderr")
    assert kernel.ok("%%remote\n1").value == "1"
