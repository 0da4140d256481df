"""Where output lands: every message is asked for its parent."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

Kernel = Any
Gates = Callable[[str], Any]


def test_prints_appear_while_the_cell_runs(kernel: Kernel, gates: Gates) -> None:
    gate = gates("gate")
    cell = kernel.start(f"%%remote\nprint('before')\n{gate.wait}\nprint('after')")
    seen = kernel.wait_for_text("before", cell)
    assert not any(message["msg_type"] == "execute_reply" for message in seen)
    assert not any("after" in message["content"].get("text", "") for message in seen)
    gate.open()
    assert kernel.finish(cell).text() == "before\nafter\n"


def test_stdout_and_stderr_stay_apart(kernel: Kernel) -> None:
    outcome = kernel.ok("%%remote\nimport sys\nprint('out')\nprint('err', file=sys.stderr)\nprint('out again')")
    assert (outcome.text("stdout"), outcome.text("stderr")) == ("out\nout again\n", "err\n")


@pytest.mark.parametrize(("magic", "name"), [("%%remote\n", "talker"), ("", "teller")])
def test_late_output_lands_in_the_cell_that_caused_it(kernel: Kernel, gates: Gates, magic: str, name: str) -> None:
    talk, hold = gates("talk"), gates("hold")
    kernel.ok(f"@shoal.remote\ndef {name}(path):\n    print('waiting')\n    open(path).read()\n    print('late')")
    cause = kernel.ok(f"{magic}ref = {name}.remote({str(talk.path)!r})")
    other = kernel.start(f"print('other begins', flush=True)\n{hold.wait}\nprint('other ends')")
    kernel.wait_for_text("other begins", other)
    talk.open()
    kernel.wait_for_text(f"({name}) late", cause.msg_id)
    hold.open()
    outcome = kernel.finish(other)
    assert outcome.text() == "other begins\nother ends\n"
    kernel.ok("shoal.get(ref)")
    mine = [m for m in kernel.published if m["msg_type"] == "stream" and name in m["content"]["text"]]
    assert {m["parent_header"]["msg_id"] for m in mine} == {cause.msg_id}
    assert "".join(m["content"]["text"] for m in mine) == f"({name}) waiting\n({name}) late\n"


def test_every_line_arrives_once_and_in_order(kernel: Kernel) -> None:
    outcome = kernel.ok("%%remote\nfor i in range(20_000):\n    print(i)")
    assert outcome.text() == "".join(f"{i}\n" for i in range(20_000))


def test_displays_land_in_the_cell_in_order(kernel: Kernel) -> None:
    outcome = kernel.ok(
        "%%remote\nfrom IPython.display import HTML\n"
        "print('1')\ndisplay(HTML('<b>2</b>'))\nprint('3')\ndisplay({'four': 4})"
    )
    kinds = [
        m["content"].get("text") or m["content"]["data"]["text/plain"]
        for m in outcome.messages
        if m["msg_type"] in ("stream", "display_data")
    ]
    assert kinds == ["1\n", "<IPython.core.display.HTML object>", "3\n", "{'four': 4}"]
    assert outcome.of_type("display_data")[0]["data"]["text/html"] == "<b>2</b>"


@pytest.fixture
def small_displays(kernel: Kernel) -> Iterator[None]:
    kernel.ok("%config Remote.max_display = 100_000\n%config Remote.max_displays = 250_000")
    yield
    kernel.ok("%config Remote.max_display = 10_000_000\n%config Remote.max_displays = 100_000_000")


SHOW = "from IPython.display import HTML\ndisplay(HTML('x' * {size}))\n"


def shown_texts(outcome: Any) -> list[str]:
    return [content["data"]["text/plain"] for content in outcome.of_type("display_data")]


def test_a_huge_display_is_a_line_that_says_what_to_do(kernel: Kernel, small_displays: None) -> None:
    cell = SHOW.format(size=50_000) + SHOW.format(size=3_000_000) + "display(5)"
    line = (
        "… display of 2.9 MiB not shown: over the limit of 97.7 KiB; `%config Remote.max_display` changes that, and a "
        "file has room for any size."
    )
    html = "<IPython.core.display.HTML object>"
    assert shown_texts(kernel.ok(f"%%remote\n{cell}")) == [html, line, "5"]
    task = (
        "import shoal.output\n@shoal.remote\ndef show():\n"
        "    shoal.output.publish_display({'text/plain': 'x' * 3_000_000})\nshoal.get(show.remote())"
    )
    assert shown_texts(kernel.ok(task)) == [line]


def test_all_displays_of_a_cell_have_a_limit_together(kernel: Kernel, small_displays: None) -> None:
    cell = "from IPython.display import HTML\nfor n in range(20):\n    display(HTML('x' * 60_000))\nprint('end')"
    outcome = kernel.ok(f"%%remote\n{cell}")
    last = shown_texts(outcome)[-1]
    assert len(shown_texts(outcome)) == 5 and "and all that follow it not shown" in last and "max_displays`" in last
    assert outcome.text() == "end\n"
    runs = kernel.ok(f'%%remote --each "i in range(3)"\n{cell}'.replace("20", "2"))
    assert len(shown_texts(runs)) == 5


def test_a_value_that_stays_remote_too(kernel: Kernel, small_displays: None) -> None:
    code = (
        "import threading\nclass Odd:\n    def __init__(self): self.lock = threading.Lock()\n"
        "    def _repr_html_(self): return 'x' * 3_000_000\nOdd()"
    )
    (shown,) = shown_texts(kernel.ok(f"%%remote\n{code}"))
    assert "display of 2.9 MiB not shown" in shown


def test_figures_show_in_a_notebook_that_has_not_plotted(kernel: Kernel) -> None:
    kernel.ok("import sys\nassert 'matplotlib' not in sys.modules")
    outcome = kernel.ok("%%remote\nimport matplotlib.pyplot as plt\nplt.plot([1, 2]);")
    (shown,) = outcome.of_type("display_data")
    assert shown["data"]["image/png"].startswith("iVBOR")
    outcome = kernel.ok("%%remote\nfig, ax = plt.subplots()\nax.plot([1, 2])\nfig")
    assert outcome.of_type("display_data") == []
    assert "image/png" in outcome.of_type("execute_result")[0]["data"]


def test_capture_captures(kernel: Kernel) -> None:
    outcome = kernel.ok("%%capture held\n%%remote\nprint('quiet')")
    assert outcome.text() == ""
    assert kernel.ok("held.stdout").value == "'quiet\\n'"


def test_other_tasks_lines_carry_their_name(kernel: Kernel) -> None:
    kernel.ok("@shoal.remote\ndef helper(i):\n    print('a', i, end='')\n    print(' b')\n    print('c')")
    outcome = kernel.ok("%%remote\nprint('mine')\nshoal.get(helper.remote(1))")
    # Two processes, two ways to the notebook: which text comes first, and whether after the cell's end, is open.
    messages = kernel.wait_for_text("(helper) c", outcome.msg_id)
    lines = "".join(m["content"]["text"] for m in messages if m["msg_type"] == "stream").splitlines()
    assert [line for line in lines if line != "mine"] == ["(helper) a 1 b", "(helper) c"]


def test_output_of_an_ordinary_cells_tasks_lands_in_the_running_cell(kernel: Kernel) -> None:
    outcome = kernel.ok("shoal.get(helper.remote(2))")
    assert outcome.text() == "(helper) a 2 b\n(helper) c\n"
