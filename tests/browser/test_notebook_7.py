"""Notebook 7: the same output as in JupyterLab, and the panel in its sidebar."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

START = "%load_ext shoal\nimport os, time, shoal\nshoal.init(name='heron', num_cpus=2);"
TALK = """%%remote --each "place in ['north', 'south']"
import os, time
print('begin')
print(place, 'talks')
while not os.path.exists({gate!r}):
    time.sleep(0.02)
if place == 'south':
    raise ValueError('nothing comes of it')"""

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(autouse=True)
def no_kernels_left_there(notebook_7):
    yield
    notebook_7.stop_kernels()


@pytest.fixture(autouse=True)
def our_page_errors(page):
    """Notebook 7.6 has errors of its own when it loads its settings, so that only ours count."""
    errors = []
    page.on("pageerror", lambda error: errors.append(f"{error}\n{error.stack}"))
    yield
    assert [error for error in errors if "shoal" in error] == []


def test_output_progress_errors_and_the_panel(notebook_7, page, notebook, tmp_path, shots):
    gate = tmp_path / "gate"
    name = notebook_7.write_notebook("seven.ipynb", START, TALK.format(gate=str(gate)))
    notebook.open_alone(notebook_7, name)
    notebook.run(0)
    cell = notebook.start(1)
    expect(cell).to_contain_text("north talks", timeout=60_000)
    expect(cell).to_contain_text("south talks")
    expect(cell.get_by_role("progressbar")).to_be_visible()
    cell.screenshot(path=shots / "notebook-7-live.png")

    page.get_by_role("menuitem", name="View", exact=True).click()
    page.locator(".lm-Menu-item", has_text="Left Sidebar").hover()
    page.get_by_role("menuitem", name="Show Shoal Clusters").click()
    panel = page.get_by_role("region", name="Shoal Clusters")
    expect(panel.get_by_role("listitem", name="Cluster heron, busy")).to_be_visible()
    page.screenshot(path=shots / "notebook-7.png")

    gate.touch()
    notebook.finish(cell)
    expect(cell).to_contain_text("ValueError: nothing comes of it")
    expect(cell).to_contain_text(re.compile(r"In\[2\]: 1 of 2 done, 1 failed, in "))
    cell.screenshot(path=shots / "notebook-7-over.png")

    panel.get_by_role("button", name="Insert a cell that connects to heron").click()
    expect(page.locator(".jp-CodeCell").filter(has_text='shoal.init("heron")')).to_be_visible()
