"""The tool behind `make demo`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

TOOL = Path(__file__).parents[2] / "notebooks" / "run_notebook.py"


def run(folder: Path, *cells: nbformat.NotebookNode, options: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """Run the tool from above the notebook's folder, as `make demo` does."""
    path = folder / "notebooks" / "a.ipynb"
    path.parent.mkdir()
    nbformat.write(nbformat.v4.new_notebook(cells=list(cells)), path)
    return subprocess.run(
        [sys.executable, str(TOOL), str(path.relative_to(folder)), *options],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=90,
    )


def code(source: str) -> nbformat.NotebookNode:
    return nbformat.v4.new_code_cell(source)


def test_prints_headings_code_and_outputs(tmp_path):
    done = run(
        tmp_path,
        nbformat.v4.new_markdown_cell("# Digits\n\nNot printed."),
        code("print('streamed')\n6 * 7"),
        code("from IPython.display import HTML, display\ndisplay(HTML('<b>bold</b>'))"),
    )
    assert done.returncode == 0, done.stderr
    assert "Digits\n======" in done.stdout
    assert "Not printed." not in done.stdout
    assert "    | 6 * 7\nstreamed\n42\n" in done.stdout
    assert "<IPython.core.display.HTML object>" in done.stdout
    assert "every cell ran" in done.stdout
    assert "\x1b" not in done.stdout
    assert "WARNING" not in done.stderr


def test_the_kernel_runs_in_the_notebooks_folder_and_leaves_nothing_there(tmp_path):
    done = run(tmp_path, code("import os\nprint(os.path.basename(os.getcwd()))"))
    assert "notebooks" in done.stdout.splitlines()
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["a.ipynb"]


def test_ends_at_the_cell_that_fails(tmp_path):
    done = run(tmp_path, code("1 / 0"), code("print('never')"))
    assert done.returncode == 1
    assert "ZeroDivisionError: division by zero" in done.stdout
    assert "never'" not in done.stdout
    assert done.stderr.splitlines()[-1] == "a.ipynb: a cell failed"


def test_ends_a_cell_that_takes_too_long(tmp_path):
    done = run(tmp_path, code("import threading\nthreading.Event().wait()"), options=("--timeout", "2"))
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "a.ipynb: a cell took longer than 2 s"


def test_saves_what_it_ran(tmp_path):
    done = run(tmp_path, code("6 * 7"), options=("--output", "b.ipynb"))
    assert done.returncode == 0, done.stderr
    [cell] = nbformat.read(tmp_path / "b.ipynb", as_version=4).cells
    assert cell.outputs[0].data["text/plain"] == "42"


@pytest.mark.parametrize("name", ["missing.ipynb", "."])
def test_names_a_notebook_that_is_not_there(tmp_path, name):
    done = subprocess.run([sys.executable, str(TOOL), str(tmp_path / name)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "no such notebook" in done.stderr
