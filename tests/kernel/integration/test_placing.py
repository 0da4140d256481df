"""Cells that their metadata sends to the cluster."""

from __future__ import annotations

from typing import Any

import pytest

Kernel = Any


def run_placed(kernel: Kernel, code: str, remote: Any) -> Any:
    """Run a cell as JupyterLab does, which sends the cell's metadata along."""
    session = kernel.client.session
    content = {"code": code, "silent": False, "store_history": True, "user_expressions": {}, "allow_stdin": False}
    metadata = {"cellId": "a-cell", "shoal": {"remote": remote}}
    message = session.msg("execute_request", content, metadata=metadata)
    kernel.client.shell_channel.send(message)
    return kernel.finish(message["header"]["msg_id"])


@pytest.fixture(autouse=True)
def _metadata_is_sent(kernel: Kernel) -> None:
    kernel.ok("import IPython, ipykernel, os\nplaces = (IPython.version_info[:2], ipykernel.version_info[:2])")
    if kernel.ok("places >= ((9, 16), (7, 3)) and ipykernel.version_info[:2] >= (7, 3)").value != "True":
        pytest.skip("this IPython or ipykernel hands no metadata on")


def test_a_placed_cell_runs_in_an_executor(kernel: Kernel) -> None:
    here = kernel.ok("os.getpid()").value
    outcome = run_placed(kernel, "made = [os.getpid()]\nmade[0]", "--num-cpus 1")
    assert outcome.value != here
    assert kernel.ok("made[0]").value == outcome.value, "names come back"
    assert kernel.ok("os.getpid()").value == here, "the next cell is here again"


def test_its_errors_have_the_cells_own_lines(kernel: Kernel) -> None:
    outcome = run_placed(kernel, "x = 1\nx / 0", "")
    assert "----> 2 x / 0" in outcome.error


def test_bad_options_are_one_line(kernel: Kernel) -> None:
    outcome = run_placed(kernel, "1", "--num-cpus")
    assert "needs a value" in outcome.text("stderr")


@pytest.mark.parametrize("odd", [None, 5, ["x"]])
def test_metadata_that_means_nothing_is_let_be(kernel: Kernel, odd: object) -> None:
    assert run_placed(kernel, "os.getpid()", odd).value == kernel.ok("os.getpid()").value


def test_a_cell_with_a_magic_is_let_be(kernel: Kernel) -> None:
    assert (
        run_placed(kernel, "%%remote --name mine\nshoal.get_runtime_context().task_name", "--name other").value
        == "'mine'"
    )
