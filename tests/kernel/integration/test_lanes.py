"""Output of many tasks: lanes where somebody looks on, text in the order of ranks elsewhere; floods in both."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from shoal_kernel.updates import RATE

Kernel = Any
Gates = Callable[[str], Any]
Message = dict[str, Any]

#: The extension's router, and ranks as the magics launch them.
SET_UP = """
import gc
from shoal_kernel.output_settings import OutputSettings
from shoal_kernel.routing import OutputRouter
(router,) = [found for found in gc.get_objects() if isinstance(found, OutputRouter)]

def launch(function, count):
    names = [f"rank {rank}" for rank in range(count)]
    lanes = router.open_lanes(names)
    refs = [function.options(name=name, cell=lanes.tag).remote(rank) for rank, name in enumerate(names)]
    return lanes, refs

def run_ranks(function, count):
    lanes, refs = launch(function, count)
    try:
        return shoal.get(refs)
    finally:
        lanes.close()
"""

RSS = "__import__('psutil').Process().memory_info().rss"


@pytest.fixture(scope="module", autouse=True)
def _set_up(kernel: Kernel) -> None:
    kernel.ok(SET_UP)


@pytest.fixture(params=[False, True], ids=["text", "live"])
def is_live(kernel: Kernel, request: pytest.FixtureRequest) -> Iterator[bool]:
    set_output(kernel, live=request.param)
    yield request.param
    set_output(kernel)


@pytest.fixture
def live(kernel: Kernel) -> Iterator[None]:
    set_output(kernel, live=True)
    yield
    set_output(kernel)


def set_output(kernel: Kernel, **settings: Any) -> None:
    kernel.ok(f"router.settings = OutputSettings(**{settings!r})")


def define(kernel: Kernel, body: str, name: str = "work") -> None:
    lines = "".join(f"    {line}\n" for line in body.splitlines())
    kernel.ok(f"@shoal.remote\ndef {name}(rank):\n{lines}")


def blocks(messages: list[Message]) -> list[Message]:
    """Return the displays and updates that draw lanes."""
    shown = [m for m in messages if m["msg_type"] in ("display_data", "update_display_data")]
    return [m for m in shown if "shoal-lanes" in m["content"]["data"].get("text/html", "")]


def last_text(messages: list[Message]) -> str:
    """Return the text of the block, as it was drawn last."""
    return "".join(str(m["content"]["data"]["text/plain"]) for m in blocks(messages)[-1:])


def nbytes(messages: list[Message]) -> int:
    return sum(len(json.dumps(message["content"])) for message in messages)


def execute_as_lab(kernel: Kernel, code: str) -> str:
    """Send a cell as JupyterLab does."""
    session = kernel.client.session
    content = {"code": code, "silent": False, "store_history": True, "user_expressions": {}, "allow_stdin": False}
    message = session.msg("execute_request", content, metadata={"cellId": "some-cell", "trusted": True})
    kernel.client.shell_channel.send(message)
    return str(message["header"]["msg_id"])


# -- lanes ---------------------------------------------------------------------------------------------------------


def test_a_front_end_that_names_cells_gets_one_block(kernel: Kernel) -> None:
    define(kernel, "print('start')\nprint('rank is', rank)\nprint('end')")
    outcome = kernel.finish(execute_as_lab(kernel, "run_ranks(work, 3);"))
    assert outcome.status == "ok"
    assert outcome.text() == ""
    first, *updates = blocks(outcome.messages)
    assert first["msg_type"] == "display_data"
    assert {m["msg_type"] for m in updates} <= {"update_display_data"}
    assert len({m["content"]["transient"]["display_id"] for m in [first, *updates]}) == 1
    assert last_text(outcome.messages).splitlines() == [
        "3 tasks, 9 lines",
        "[3 tasks] start",
        "(rank 0) rank is 0",
        "(rank 1) rank is 1",
        "(rank 2) rank is 2",
        "[3 tasks] end",
    ]
    html = blocks(outcome.messages)[-1]["content"]["data"]["text/html"]
    assert '<b title="rank 0, rank 1, rank 2">[3 tasks]</b><pre>start</pre>' in html


def test_an_ordinary_cells_tasks_have_lanes_too(kernel: Kernel, live: None) -> None:
    define(kernel, "print('task', rank)")
    outcome = kernel.ok("shoal.get([work.remote(i) for i in range(3)])")
    lines = last_text(outcome.messages).splitlines()
    assert lines[0] == "3 tasks, 3 lines"
    assert sorted(re.sub(r"^\(work( #\d)?\) ", "", line) for line in lines[1:]) == ["task 0", "task 1", "task 2"]


def test_the_cells_own_text_stays_a_stream(kernel: Kernel, live: None) -> None:
    outcome = kernel.ok("%%remote\nimport sys\nprint('out')\nprint('err', file=sys.stderr)")
    assert (outcome.text("stdout"), outcome.text("stderr")) == ("out\n", "err\n")
    assert blocks(outcome.messages) == []


def test_lines_come_while_the_tasks_run(kernel: Kernel, live: None, gates: Gates) -> None:
    gate = gates("gate")
    define(kernel, f"print('before')\n{gate.wait}\nprint('after')")
    cell = kernel.start("run_ranks(work, 1);")
    messages = kernel.wait_for(lambda messages: "before" in last_text(messages), cell)
    assert "after" not in last_text(messages)
    gate.open()
    assert last_text(kernel.finish(cell).messages) == "(rank 0) before\n(rank 0) after"


def test_late_lines_land_under_the_cell_that_launched_them(kernel: Kernel, is_live: bool, gates: Gates) -> None:
    gate, hold = gates("gate"), gates("hold")
    define(kernel, f"print('early', rank)\n{gate.wait}\nprint('late', rank)")
    cause = kernel.ok("lanes, refs = launch(work, 1)")
    other = kernel.start(f"print('other', flush=True)\nshoal.get(refs)\nlanes.close()\n{hold.wait}")
    kernel.wait_for_text("other", other)
    gate.open()

    def has_come(messages: list[Message]) -> bool:
        text = "".join(m["content"]["text"] for m in messages if m["msg_type"] == "stream")
        return "late 0" in (last_text(messages) if is_live else text)

    kernel.wait_for(has_come, cause.msg_id)
    hold.open()
    outcome = kernel.finish(other)
    assert outcome.text() == "other\n"
    assert blocks(outcome.messages) == []


def test_a_bar_is_one_line(kernel: Kernel, live: None) -> None:
    define(kernel, "from tqdm import tqdm\nfor _ in tqdm(range(2_000), mininterval=0):\n    pass\nprint('done')")
    outcome = kernel.ok("run_ranks(work, 2);")
    lines = last_text(outcome.messages).splitlines()
    assert sum("100%" in line for line in lines) == 2
    assert lines[0] == "2 tasks, 4 lines"
    assert lines[-1].endswith(" done")
    assert nbytes(outcome.messages) < 500_000


def test_what_cannot_be_shown_does_no_harm(kernel: Kernel, is_live: bool) -> None:
    define(
        kernel,
        "import sys\nprint('<script>alert(1)</script>\\x1b[31mred\\x1b[0m', '\\udc80')\n"
        "sys.stdout.buffer.write(b'bytes \\xff\\n')\nprint('x' * 10_000_000)\nprint('end')",
    )
    outcome = kernel.ok("run_ranks(work, 1);")
    text = last_text(outcome.messages) if is_live else outcome.text()
    assert "<script>alert(1)</script>red ?" in text
    assert "bytes \ufffd" in text
    assert text.rstrip().endswith("end")
    assert nbytes(outcome.messages) < 4_000_000
    if is_live:
        assert "<script" not in blocks(outcome.messages)[-1]["content"]["data"]["text/html"]


def test_a_cell_that_captures_has_the_text(kernel: Kernel, is_live: bool) -> None:
    define(kernel, "print('quiet', rank)")
    outcome = kernel.ok("%%capture held\nrun_ranks(work, 2)")
    assert blocks(outcome.messages) == []
    assert kernel.ok("held.stdout").value == repr("(rank 0) quiet 0\n(rank 1) quiet 1\n")


def test_logs_and_warnings_arrive_as_stderr_also_from_threads(kernel: Kernel) -> None:
    outcome = kernel.ok(
        "%%remote\nimport logging, threading, warnings\n"
        "def talk(who):\n    logging.warning('logged in %s', who)\n    warnings.warn(f'warned in {who}')\n"
        "talk('task')\nthread = threading.Thread(target=talk, args=['thread'])\nthread.start()\nthread.join()"
    )
    err = outcome.text("stderr")
    for who in ("task", "thread"):
        assert f"logged in {who}" in err
        assert f"UserWarning: warned in {who}" in err
    assert outcome.text("stdout") == ""


# -- text ----------------------------------------------------------------------------------------------------------


def test_ranks_are_printed_in_order_each_time_the_same(kernel: Kernel, gates: Gates) -> None:
    gate = gates("gate")
    body = (
        f"if rank == 0:\n    {gate.wait}\n"
        "import sys\nfor i in range(3):\n    print(rank, i)\nprint('err', rank, file=sys.stderr)\n"
        f"if rank == 1:\n    open({str(gate.path)!r}, 'w').close()"
    )
    define(kernel, body)
    runs = [kernel.ok("run_ranks(work, 2);") for _ in range(2)]
    for outcome in runs:
        assert outcome.text("stdout") == "".join(f"(rank {rank}) {rank} {i}\n" for rank in range(2) for i in range(3))
        assert outcome.text("stderr") == "(rank 0) err 0\n(rank 1) err 1\n"
        assert blocks(outcome.messages) == []


def test_displays_of_ranks_are_in_order_too(kernel: Kernel) -> None:
    define(kernel, "import shoal.output\nprint('a', rank)\nshoal.output.publish_display({'text/plain': f'pic {rank}'})")
    outcome = kernel.ok("run_ranks(work, 2);")
    texts = [
        m["content"].get("text") or m["content"]["data"]["text/plain"]
        for m in outcome.messages
        if m["msg_type"] in ("stream", "display_data")
    ]
    seen = [text for text in texts if text.startswith(("pic", "(rank"))]
    assert seen == ["(rank 0) a 0\n", "pic 0", "(rank 1) a 1\n", "pic 1"]


def test_one_cell_may_launch_ranks_twice(kernel: Kernel, is_live: bool) -> None:
    define(kernel, "print('again', rank)")
    outcome = kernel.ok("run_ranks(work, 2)\nrun_ranks(work, 2);")
    if is_live:
        ids = {m["content"]["transient"]["display_id"] for m in blocks(outcome.messages)}
        assert len(ids) == 2
    else:
        assert outcome.text() == "(rank 0) again 0\n(rank 1) again 1\n" * 2


def test_lanes_need_different_names(kernel: Kernel) -> None:
    assert "lanes need names, each its own" in kernel.run("router.open_lanes(['a', 'a'])").error


# -- floods --------------------------------------------------------------------------------------------------------


def test_a_million_lines_of_the_cell_itself(kernel: Kernel, is_live: bool) -> None:
    outcome = kernel.ok("%%remote\nfor number in range(1_000_000):\n    print(number)")
    text = outcome.text()
    if is_live:
        text += last_text(outcome.messages)
    check_flood(text)
    assert nbytes(outcome.messages) < 2_000_000
    assert outcome.text().startswith("0\n1\n2\n")


def check_flood(text: str) -> None:
    """The first lines, a number and the last hundred lines are a million."""
    shown = re.findall(r"^\d+$", text, re.MULTILINE)
    (more,) = re.findall(r"^… ([\d,]+) more lines, then the last 100:$", text, re.MULTILINE)
    assert len(shown) + int(more.replace(",", "")) == 1_000_000
    assert shown[-100:] == [str(number) for number in range(999_900, 1_000_000)]


def test_a_million_lines_of_eight_tasks(kernel: Kernel, is_live: bool) -> None:
    define(kernel, "for number in range(125_000):\n    print('of', rank, 'line', number)")
    before = int(kernel.ok(RSS).value)
    began = time.monotonic()
    outcome = kernel.ok("run_ranks(work, 8);")
    # what updates of the live text may take in this time, and what there is beside them
    assert nbytes(outcome.messages) < 1_000_000 + 1.2 * RATE * (time.monotonic() - began)
    assert int(kernel.ok(RSS).value) - before < 100 << 20
    text = last_text(outcome.messages) if is_live else outcome.text()
    for rank in range(8):
        assert f"(rank {rank}) of {rank} line 124999" in text
    if is_live:
        assert text.splitlines()[0] == "8 tasks, 1,000,000 lines"
    said = sum(
        (int(count) if count else 1) * (int(more.replace(",", "")) if more else 1)
        for count, more in re.findall(r"^(?:\[(\d+) tasks.*?\]|\(.*?\)) (?:of|… ([\d,]+) more)", text, re.MULTILINE)
    )
    assert said == 1_000_000


def test_a_steady_stream_arrives_whole_when_the_cap_allows(kernel: Kernel) -> None:
    set_output(kernel, max_lines=100_000)
    outcome = kernel.ok(
        "%%remote\nimport time\nbegin = time.monotonic()\nfor number in range(30_000):\n"
        "    print('step', number, 'of a training run, loss 0.123456')\n"
        "    if number % 100 == 99:\n        time.sleep(max(0, begin + number / 10_000 - time.monotonic()))"
    )
    set_output(kernel)
    expected = "".join(f"step {number} of a training run, loss 0.123456\n" for number in range(30_000))
    assert outcome.text() == expected


def test_the_cap_can_be_set(kernel: Kernel, is_live: bool) -> None:
    set_output(kernel, max_lines=10, live=is_live)
    outcome = kernel.ok("%%remote\nfor number in range(1_000):\n    print(number)")
    shown = outcome.text() + (last_text(outcome.messages) if is_live else "")
    expected = [*map(str, range(10)), "… 890 more lines, then the last 100:", *map(str, range(900, 1_000))]
    assert shown.splitlines() == expected
