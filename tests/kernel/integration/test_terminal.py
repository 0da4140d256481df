"""IPython in a terminal: the same magics, plain text."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from IPython.core.interactiveshell import InteractiveShell

import shoal


@pytest.fixture(scope="module")
def shell(_runtime_dir: None) -> Iterator[InteractiveShell]:
    instance = InteractiveShell.instance(colors="nocolor")
    instance.history_manager.enabled = False
    instance.run_line_magic("load_ext", "shoal")
    shoal.init(num_cpus=2)
    yield instance
    instance.run_line_magic("unload_ext", "shoal")
    shoal.shutdown()
    InteractiveShell.clear_instance()


@pytest.fixture
def run(shell: InteractiveShell, capsys: pytest.CaptureFixture[str]) -> Callable[[str], tuple[Any, str]]:
    def run_cell(code: str) -> tuple[Any, str]:
        capsys.readouterr()
        result = shell.run_cell(code, store_history=True)
        captured = capsys.readouterr()
        return result, re.sub(r"\x1b\[[0-9;]*m", "", captured.out + captured.err)

    return run_cell


def test_a_cell_runs_and_prints(run: Callable[[str], tuple[Any, str]]) -> None:
    run("base = 40")
    result, text = run("%%remote\nprint('working')\nanswer = base + 2\nanswer")
    assert result.result == 42 and text.startswith("working\n")
    assert run("answer")[0].result == 42


def test_displays_are_text(run: Callable[[str], tuple[Any, str]]) -> None:
    assert run("%%remote\ndisplay([1, 2])")[1] == "[1, 2]\n"


def test_helpers_have_a_prefix(run: Callable[[str], tuple[Any, str]]) -> None:
    run("import shoal\n@shoal.remote\ndef helper():\n    print('hi')")
    assert run("shoal.get(helper.remote())")[1] == "(helper) hi\n"


def test_an_error_shows_the_cell(run: Callable[[str], tuple[Any, str]]) -> None:
    result, text = run("%%remote\nx = 1\ndef fail():\n    raise ValueError('no')\nfail()")
    assert isinstance(result.error_in_exec, ValueError)
    assert "----> 5 fail()" in text and "----> 4     raise ValueError('no')" in text and "run_cell" not in text


def test_what_was_being_handled_is_shown(run: Callable[[str], tuple[Any, str]]) -> None:
    _, text = run("%%remote\ntry:\n    {}['k']\nexcept KeyError:\n    1 / 0")
    assert "During handling of the above exception" in text and "KeyError: 'k'" in text and "shoal" not in text


def test_a_magic_above_keeps_the_lines(run: Callable[[str], tuple[Any, str]]) -> None:
    _, text = run("\n%%time\n%%remote\nx = 1\n1 / 0")
    assert "----> 5 1 / 0" in text


def test_a_cell_made_by_a_program_is_its_own(run: Callable[[str], tuple[Any, str]]) -> None:
    _, text = run("x = 5\nget_ipython().run_cell_magic('remote', '', 'y = x\\n1 / 0')")
    assert "----> 2 1 / 0" in text and "run_cell_magic" not in text


def test_the_remote_frames_can_be_debugged(run: Callable[[str], tuple[Any, str]]) -> None:
    result, _ = run("%%remote\ndef deep():\n    1 / 0\ndeep()")
    traceback = result.error_in_exec.__traceback__
    while traceback.tb_next is not None:
        traceback = traceback.tb_next
    assert (traceback.tb_frame.f_code.co_name, traceback.tb_lineno) == ("deep", 3)


def test_bad_input_is_one_line(run: Callable[[str], tuple[Any, str]]) -> None:
    assert "Unknown option `--tiemout`. Did you mean `--timeout`?" in run("%%remote --tiemout 3\n1")[1]
    _, text = run("%%remote\n1 +")
    assert re.fullmatch(
        r"  Cell In\[\d+\], line 2\n    1 \+\n       \^\nSyntaxError: invalid syntax; nothing was sent\.\n", text
    )


def test_the_flags_of_the_notebook_hold(run: Callable[[str], tuple[Any, str]]) -> None:
    run("from __future__ import annotations")
    result, text = run("%%remote\ndef f(x: Missing): pass\nf.__annotations__")
    assert result.result == {"x": "Missing"}, text


TERMINAL = """
import shoal, time
shoal.init(num_cpus=2);
@shoal.remote
def nap():
    time.sleep(0.8)


shoal.get([nap.remote() for _ in range(10)]);
shoal.get([nap.remote() for _ in range(2)]);
print("the " + "end")
shoal.shutdown()
exit()
"""


def test_progress_is_told_in_lines_in_a_real_terminal(_runtime_dir: None, tmp_path: Path) -> None:
    environment = {**os.environ, "IPYTHONDIR": str(tmp_path), "TERM": "dumb"}
    command = [sys.executable, "-m", "IPython", "--simple-prompt", "--no-banner", "--colors=nocolor", "--ext=shoal"]
    ours, theirs = pty.openpty()
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=theirs, stderr=theirs, env=environment) as process:
        os.close(theirs)
        assert process.stdin is not None
        process.stdin.write(TERMINAL.encode())
        process.stdin.close()
        said = b"".join(iter(lambda: _read(ours), b"")).decode().replace("\r", "")
        assert process.wait(60) == 0, said
    os.close(ours)
    lines = re.findall(r"In\[\d+\]: (\d+) of (\d+) done", said)
    assert lines[-1] == ("10", "10") and len(lines) >= 2, said
    assert {total for _, total in lines} == {"10"} and "the end" in said


def _read(terminal: int) -> bytes:
    """Return what comes next; nothing when the other side has hung up."""
    assert select.select([terminal], [], [], 60)[0], "the terminal says nothing"
    try:
        return os.read(terminal, 65_536)
    except OSError:
        return b""
