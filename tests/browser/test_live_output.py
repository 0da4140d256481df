"""Lanes as a user meets them: while another cell runs, after a reload, and in a notebook that is opened again."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

START = "%load_ext shoal\nimport os, time, shoal\nshoal.init(num_cpus=3);"
#: Three tasks that go from step to step as files appear.
TALK = """%%remote --bg --num-cpus 0 -o talk --each "place in ['north', 'south', 'east']"
import os, sys, time
for step in range(4):
    print('begin of step', step)
    print(f'{{place}}: loss {{1 / (step + 1):.3f}} at step {{step}}')
    if place == 'east':
        print('\\x1b[31mnothing\\x1b[0m <b>improves</b>', file=sys.stderr)
    while not os.path.exists({gates!r} + f'/{{step}}'):
        time.sleep(0.02)
"""
OTHER = """print('another cell begins')
while not os.path.exists({gates!r} + '/other'):
    time.sleep(0.02)
print('another cell ends')"""
NAME = "talk.ipynb"

pytestmark = [pytest.mark.timeout(300), pytest.mark.usefixtures("page_errors")]


@pytest.fixture
def gates(tmp_path) -> Path:
    """A folder in which files let tasks go on."""
    folder = tmp_path / "gates"
    folder.mkdir()
    return folder


@pytest.fixture
def talking(lab, page, notebook, workspace, gates):
    """The cell of three tasks that have begun to talk."""
    lab.open(page, workspace)
    notebook.open(NAME, START, TALK.format(gates=str(gates)), OTHER.format(gates=str(gates)))
    notebook.run(0)
    cell = notebook.run(1)
    for place in ("north", "south", "east"):
        expect(cell).to_contain_text(f"{place}: loss 1.000 at step 0")
    return cell


def come_back(page: Page, lab) -> None:
    """Open the page of JupyterLab again, in the same workspace."""
    page.go_back()
    page.wait_for_function("() => window.jupyterapp !== undefined")
    page.evaluate("() => window.jupyterapp.restored.then(() => undefined)")


def test_lanes_go_on_while_another_cell_runs_and_after_a_reload(
    lab, page, notebook, use_theme, talking, gates, shots, workspace
):
    other = notebook.start(2)
    expect(other).to_contain_text("another cell begins")
    (gates / "0").touch()
    for place in ("north", "south", "east"):
        expect(talking).to_contain_text(f"{place}: loss 0.500 at step 1")
    expect(talking).to_contain_text("[3 tasks]")
    expect(other.locator(".jp-InputPrompt")).to_have_text("[*]:")
    expect(other).not_to_contain_text("loss")
    talking.screenshot(path=shots / "lanes-live.png")
    use_theme("Dark")
    talking.screenshot(path=shots / "lanes-live-dark.png")
    use_theme("Light")

    notebook.save()
    notebook.reload()
    cell, other = notebook.cell(1), notebook.cell(2)
    expect(cell).to_contain_text("south: loss 0.500 at step 1")
    (gates / "1").touch()
    for place in ("north", "south", "east"):
        expect(cell).to_contain_text(f"{place}: loss 0.333 at step 2")
    expect(other).not_to_contain_text("loss")
    expect(cell.locator(".shoal-lanes")).to_have_count(1)

    for gate in ("other", "2", "3"):
        (gates / gate).touch()
    for place in ("north", "south", "east"):
        expect(cell).to_contain_text(f"{place}: loss 0.250 at step 3")
    notebook.wait_for_text(1, "3 tasks, 28 lines")  # the plain text is whole when nothing changes any more
    notebook.save()
    (saved,) = [o for o in notebook.saved_outputs(NAME, 1) if "shoal-lanes" in o.get("data", {}).get("text/html", "")]
    assert saved.data["text/plain"].count("loss 0.250 at step 3") == 3
    assert "<script" not in saved.data["text/html"]

    lab.stop_kernels()
    lab.open(page, f"{workspace}-again")
    notebook.open(NAME)
    for place in ("north", "south", "east"):
        expect(notebook.cell(1)).to_contain_text(f"{place}: loss 0.250 at step 3")
    notebook.cell(1).screenshot(path=shots / "lanes-reopened.png")
    use_theme("Dark")
    notebook.cell(1).screenshot(path=shots / "lanes-reopened-dark.png")
    use_theme("Light")


def test_output_that_came_while_no_page_was_there_is_shown(lab, page, notebook, talking, gates):
    notebook.save()
    page.goto("about:blank")
    for gate in "0123":
        (gates / gate).touch()
    lab.wait_for_cluster(lambda cluster: cluster["tasks"]["finished"] >= 3)
    come_back(page, lab)
    for place in ("north", "south", "east"):
        expect(notebook.cell(1)).to_contain_text(f"{place}: loss 0.250 at step 3")


def test_output_of_a_cell_that_was_not_saved_finds_its_cell(notebook, talking, gates):
    notebook.reload()
    cell = notebook.cell(1)
    expect(cell.locator(".cm-content")).to_contain_text("place in")
    (gates / "0").touch()
    for place in ("north", "south", "east"):
        expect(cell).to_contain_text(f"{place}: loss 0.500 at step 1")
    expect(cell.locator(".shoal-lanes")).to_have_count(1)
