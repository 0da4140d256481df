"""Hints after real work: given where there is a better way, and nowhere else."""

from __future__ import annotations

from typing import Any

import pytest

Kernel = Any


def run_by_a_person(kernel: Kernel, code: str) -> Any:
    """Run a cell as a notebook does in which somebody edits cells."""
    session, content = kernel.client.session, {"code": code, "silent": False, "store_history": True}
    message = session.msg("execute_request", {**content, "stop_on_error": True}, metadata={"cellId": "cell"})
    kernel.client.shell_channel.send(message)
    outcome = kernel.finish(message["header"]["msg_id"])
    assert outcome.status == "ok", outcome.reply["content"]
    return outcome


def hints(outcome: Any) -> list[str]:
    shown = [display["data"]["text/plain"] for display in outcome.of_type("display_data")]
    return [text for text in shown if text.startswith("hint: ")]


@pytest.fixture(autouse=True)
def _fresh(kernel: Kernel) -> None:
    """No hint has been given yet."""
    kernel.ok("%unload_ext shoal")
    kernel.ok("%load_ext shoal")
    kernel.ok("@shoal.remote\ndef pause(x):\n    time.sleep(0.08)\n    return x")
    kernel.ok("@shoal.remote\ndef quick(x):\n    return x")


ONE_BY_ONE = "for i in range(15):\n    shoal.get(pause.remote(i))"


def test_get_in_a_loop_once_and_not_again(kernel: Kernel) -> None:
    outcome = run_by_a_person(kernel, ONE_BY_ONE)
    (hint,) = hints(outcome)
    assert "15 calls ran one after the other" in hint and "%config Remote.hints = False" in hint
    (html,) = [
        display["data"]["text/html"]
        for display in outcome.of_type("display_data")
        if display["data"]["text/plain"] == hint
    ]
    assert "<code>shoal.get(refs)</code>" in html
    assert outcome.text("stderr") == ""
    assert hints(run_by_a_person(kernel, ONE_BY_ONE)) == []


def test_a_program_that_runs_the_notebook_gets_none(kernel: Kernel) -> None:
    assert hints(kernel.ok(ONE_BY_ONE)) == []


@pytest.mark.parametrize(
    "code",
    [
        "refs = [pause.remote(i) for i in range(15)]\nfor ref in refs:\n    shoal.get(ref)",
        "shoal.get([pause.remote(i) for i in range(15)])",
        "x = 0\nfor i in range(15):\n    x = shoal.get(pause.remote(x))",
        "list(shoal.map(lambda x: x + 1, range(20_000)))\ntime.sleep(0.6)",
        "time.sleep(0.6)",
    ],
)
def test_good_habits(kernel: Kernel, code: str) -> None:
    assert hints(run_by_a_person(kernel, code)) == []


def test_small_tasks(kernel: Kernel) -> None:
    (hint,) = hints(
        run_by_a_person(kernel, "for _ in range(12):\n    shoal.get([quick.remote(i) for i in range(2500)])")
    )
    assert "30,000 tasks of `quick`" in hint and "`shoal.map`" in hint


def test_the_same_argument(kernel: Kernel) -> None:
    kernel.ok("import numpy as np\nbig = np.ones(5_000_000)")
    code = "_ = shoal.get([pause.remote(big) for i in range(8)])\ntime.sleep(0.6)"
    (hint,) = hints(run_by_a_person(kernel, code))
    assert "of equal arguments were copied" in hint and "shoal.put" in hint


def test_a_stored_argument(kernel: Kernel) -> None:
    kernel.ok("import numpy as np\nstored = shoal.put(np.ones(5_000_000))")
    code = "_ = shoal.get([pause.remote(stored) for i in range(8)])\ntime.sleep(0.6)"
    assert hints(run_by_a_person(kernel, code)) == []
