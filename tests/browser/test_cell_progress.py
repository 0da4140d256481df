"""The progress of a cell as a user meets it: going on, at the stop button, after a reload, and over."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest
from playwright.sync_api import Locator, expect

START = "%load_ext shoal\nimport os, time, shoal\nshoal.init(num_cpus=2);"
#: Tasks that wait for a file, so that the test says when they go on.
WAITING = """@shoal.remote
def train(i):
    while i >= 3 and not os.path.exists({gate!r}):
        time.sleep(0.02)
    time.sleep(0.1)
    if i == 2:
        raise ValueError('<b>the loss</b> is nan')
    return i

@shoal.remote(name='<evaluate & compare>')
def evaluate(x):
    time.sleep(0.05)
    return x

refs = [train.remote(i) for i in range(8)] + [evaluate.remote(i) for i in range(4)]
"""
WAIT = "shoal.wait(refs, num_returns=len(refs))\nprint('waited')"

pytestmark = [pytest.mark.timeout(300), pytest.mark.usefixtures("page_errors")]


@pytest.fixture
def gate(tmp_path) -> Path:
    return tmp_path / "open"


@pytest.fixture
def running(lab, page, notebook, workspace, gate) -> Locator:
    """A cell whose work has begun and waits at the gate; after a reload, JupyterLab shows widgets of idle kernels."""
    waits = "" if "reloaded" in workspace else WAIT
    lab.open(page, workspace)
    notebook.open(f"{workspace}.ipynb", START, WAITING.format(gate=str(gate)) + waits)
    notebook.run(0)
    cell = notebook.start(1)
    expect(cell.get_by_role("progressbar")).to_be_visible(timeout=60_000)
    return cell


def test_it_goes_on_and_leaves_a_snapshot(notebook, running, use_theme, workspace, gate, shots):
    expect(running).to_contain_text(re.compile(r"In\[2\]: \d of 12 done, \d+ running, 1 failed"))
    bar = running.get_by_role("progressbar")
    assert bar.get_attribute("aria-valuemax") == "12"
    running.get_by_role("button", name="By function").press("Space")  # JupyterLab takes Enter for itself
    expect(running.get_by_role("rowheader", name="<evaluate & compare>")).to_be_visible()
    running.screenshot(path=shots / "progress-live.png")
    use_theme("Dark")
    running.screenshot(path=shots / "progress-live-dark.png")
    gate.touch()
    notebook.finish(running)
    expect(running).to_contain_text(re.compile(r"In\[2\]: 11 of 12 done, 1 failed, in "))
    expect(running).to_contain_text("ValueError: <b>the loss</b> is nan")
    expect(running.get_by_role("button", name="Stop")).to_have_count(0)
    expect(running.get_by_role("img", name="Film of the cell: 12 tasks")).to_be_visible()
    running.get_by_text("by function, and as a table").click()
    running.screenshot(path=shots / "progress-over-dark.png")
    use_theme("Light")
    running.screenshot(path=shots / "progress-over.png")
    notebook.save()
    (shown,) = [o for o in notebook.saved_outputs(f"{workspace}.ipynb", 1) if o.output_type == "display_data"]
    assert set(shown.data) == {"text/html", "text/plain"}
    assert "In[2]: 11 of 12 done, 1 failed" in shown.data["text/plain"]
    assert len(shown.data["text/html"]) < 30_000 and "<script" not in shown.data["text/html"]


def test_the_stop_button_stops_the_cell_by_keyboard(notebook, running, shots):
    button = running.get_by_role("button", name="Stop In[2]")
    button.focus()
    button.press("Space")
    notebook.finish(running)
    expect(running).to_contain_text("waited")
    expect(running).to_contain_text(re.compile(r"In\[2\]: \d of 12 done, 1 failed, \d+ cancelled, in "))
    running.screenshot(path=shots / "progress-stopped.png")


def test_a_reloaded_page_goes_on(notebook, running, gate):
    notebook.save()
    notebook.reload()
    cell = notebook.cell(1)
    expect(cell.get_by_role("progressbar")).to_be_visible(timeout=60_000)
    gate.touch()
    expect(cell).to_contain_text(re.compile(r"In\[2\]: 11 of 12 done, 1 failed, in "))
    expect(cell.get_by_role("img", name="Film of the cell")).to_be_visible()


def test_the_snapshot_survives_in_a_notebook_that_is_not_trusted(lab, notebook, running, workspace, gate, shots):
    gate.touch()
    notebook.finish(running)
    notebook.save()
    saved = nbformat.read(lab.root / f"{workspace}.ipynb", 4)
    saved.cells[1].source += "\n# somebody else's"
    for cell in saved.cells:
        cell.metadata.pop("trusted", None)
    saved.cells[1].outputs[0].data["text/html"] += "<p>changed elsewhere</p>"
    nbformat.write(saved, lab.root / "theirs.ipynb")
    notebook.open("theirs.ipynb")
    cell = notebook.cell(1)
    expect(cell).to_contain_text("changed elsewhere")
    expect(cell.locator("style")).to_have_count(0)  # what is not trusted has none
    expect(cell).to_contain_text("11 of 12 done")
    expect(cell.get_by_role("img")).to_be_visible()
    cell.screenshot(path=shots / "progress-untrusted.png")
