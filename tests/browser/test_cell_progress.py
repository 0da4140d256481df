"""The progress of a cell as a user meets it: going on, at the stop button, after a reload, and over."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest
from playwright.sync_api import Locator, Page, expect

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


@pytest.fixture(autouse=True)
def no_kernels_left(lab):
    yield
    lab.stop_kernels()


@pytest.fixture
def gate(tmp_path) -> Path:
    return tmp_path / "open"


def cell_at(page: Page, index: int) -> Locator:
    return page.locator(".jp-NotebookPanel:visible .jp-CodeCell").nth(index)


def start_cell(page: Page, index: int) -> Locator:
    cell = cell_at(page, index)
    cell.locator(".cm-content").click()
    page.keyboard.press("Shift+Enter")
    return cell


def finish(cell: Locator) -> None:
    expect(cell.locator(".jp-InputPrompt")).to_have_text(re.compile(r"\[\d+\]:"), timeout=60_000)


def use_theme(page: Page, theme: str) -> None:
    page.evaluate("theme => window.jupyterapp.commands.execute('apputils:change-theme', { theme })", theme)
    page.wait_for_function("theme => document.body.dataset.jpThemeName === theme", arg=theme)
    expect(page.locator("#jupyterlab-splash")).to_have_count(0)


def save(page: Page) -> None:
    page.evaluate("() => window.jupyterapp.commands.execute('docmanager:save')")


def outputs(lab, name: str, index: int) -> list[dict]:
    return nbformat.read(lab.root / name, 4).cells[index].outputs


@pytest.fixture
def running(lab, page, workspace, gate) -> Locator:
    """A cell whose work has begun and waits at the gate; after a reload, JupyterLab shows widgets of idle kernels."""
    waits = "" if "reloaded" in workspace else WAIT
    name = lab.write_notebook(f"{workspace}.ipynb", START, WAITING.format(gate=str(gate)) + waits)
    lab.open(page, workspace)
    lab.open_notebook(page, name)
    finish(start_cell(page, 0))
    cell = start_cell(page, 1)
    expect(cell.get_by_role("progressbar")).to_be_visible(timeout=60_000)
    return cell


def test_it_goes_on_and_leaves_a_snapshot(lab, page, running, workspace, gate, shots):
    expect(running).to_contain_text(re.compile(r"In\[2\]: \d of 12 done, \d+ running, 1 failed"))
    bar = running.get_by_role("progressbar")
    assert bar.get_attribute("aria-valuemax") == "12"
    running.get_by_role("button", name="By function").press("Space")  # JupyterLab takes Enter for itself
    expect(running.get_by_role("rowheader", name="<evaluate & compare>")).to_be_visible()
    running.screenshot(path=shots / "progress-live.png")
    use_theme(page, "JupyterLab Dark")
    running.screenshot(path=shots / "progress-live-dark.png")
    gate.touch()
    finish(running)
    expect(running).to_contain_text(re.compile(r"In\[2\]: 11 of 12 done, 1 failed, in "))
    expect(running).to_contain_text("ValueError: <b>the loss</b> is nan")
    expect(running.get_by_role("button", name="Stop")).to_have_count(0)
    expect(running.get_by_role("img", name="Film of the cell: 12 tasks")).to_be_visible()
    running.get_by_text("by function, and as a table").click()
    running.screenshot(path=shots / "progress-over-dark.png")
    use_theme(page, "JupyterLab Light")
    running.screenshot(path=shots / "progress-over.png")
    save(page)
    (shown,) = [o for o in outputs(lab, f"{workspace}.ipynb", 1) if o.output_type == "display_data"]
    assert set(shown.data) == {"text/html", "text/plain"}
    assert "In[2]: 11 of 12 done, 1 failed" in shown.data["text/plain"]
    assert len(shown.data["text/html"]) < 30_000 and "<script" not in shown.data["text/html"]


def test_the_stop_button_stops_the_cell_by_keyboard(running, shots):
    button = running.get_by_role("button", name="Stop In[2]")
    button.focus()
    button.press("Space")
    finish(running)
    expect(running).to_contain_text("waited")
    expect(running).to_contain_text(re.compile(r"In\[2\]: \d of 12 done, 1 failed, \d+ cancelled, in "))
    running.screenshot(path=shots / "progress-stopped.png")


def test_a_reloaded_page_goes_on(lab, page, running, workspace, gate):
    save(page)
    page.reload()
    page.wait_for_function("() => window.jupyterapp !== undefined")
    page.evaluate("() => window.jupyterapp.restored.then(() => undefined)")
    cell = cell_at(page, 1)
    expect(cell.get_by_role("progressbar")).to_be_visible(timeout=60_000)
    gate.touch()
    expect(cell).to_contain_text(re.compile(r"In\[2\]: 11 of 12 done, 1 failed, in "))
    expect(cell.get_by_role("img", name="Film of the cell")).to_be_visible()


def test_the_snapshot_survives_in_a_notebook_that_is_not_trusted(lab, page, running, workspace, gate, shots):
    gate.touch()
    finish(running)
    save(page)
    saved = nbformat.read(lab.root / f"{workspace}.ipynb", 4)
    saved.cells[1].source += "\n# somebody else's"
    for cell in saved.cells:
        cell.metadata.pop("trusted", None)
    saved.cells[1].outputs[0].data["text/html"] += "<p>changed elsewhere</p>"
    nbformat.write(saved, lab.root / "theirs.ipynb")
    lab.open_notebook(page, "theirs.ipynb")
    cell = cell_at(page, 1)
    expect(cell).to_contain_text("changed elsewhere")
    expect(cell.locator("style")).to_have_count(0)  # what is not trusted has none
    expect(cell).to_contain_text("11 of 12 done")
    expect(cell.get_by_role("img")).to_be_visible()
    cell.screenshot(path=shots / "progress-untrusted.png")
