"""The panel with the real server part: a cluster is started, watched, used, cancelled, scaled and stopped from it."""

from __future__ import annotations

import re
import time

import pytest
from playwright.sync_api import expect

SLOW = 60_000
WORK = """import time
@shoal.remote
def train(x):
    time.sleep(600)
@shoal.remote
def broken(x):
    raise ValueError('no such digit')
bad = [broken.remote(i) for i in range(3)]
shoal.wait(bad, num_returns=3)
refs = [train.remote(i) for i in range(8)]"""

pytestmark = [pytest.mark.timeout(300), pytest.mark.usefixtures("page_errors", "no_clusters_left")]


def test_a_clusters_life_from_the_panel(lab, page, notebook, panel, workspace, shots):
    lab.open(page, workspace)
    lab.open_panel(page)
    panel.get_by_role("button", name="Start a cluster…").click()
    form = panel.get_by_role("form", name="Start a cluster")
    form.get_by_label("Name").fill("perch")
    form.get_by_label("Nodes").fill("1")
    form.get_by_role("button", name="Start").click()
    card = panel.get_by_role("listitem", name=re.compile("Cluster perch"))
    expect(card).to_be_visible()
    expect(card).to_have_accessible_name(re.compile("idle"), timeout=SLOW)
    expect(panel.get_by_role("img", name=re.compile("^CPU: "))).to_be_visible()

    notebook.open("whole.ipynb", "%load_ext shoal\nimport shoal", WORK, "1 + 1")
    notebook.run(0)
    card.get_by_role("button", name="Use perch in this notebook").click()
    expect(card.get_by_role("button", name="Use perch in this notebook")).to_be_enabled(timeout=SLOW)
    notebook.run(1)
    cell = panel.get_by_role("listitem", name="Cell In[2]")
    expect(cell.get_by_role("progressbar")).to_have_attribute(
        "aria-valuetext", re.compile(r"running.*3 failed"), timeout=SLOW
    )
    expect(panel.get_by_role("img", name=re.compile("What . executors? did"))).to_be_visible(timeout=SLOW)
    page.screenshot(path=shots / "panel-whole.png")

    # the page is loaded again: the panel shows what it showed, and so does the notebook
    page.evaluate("() => window.jupyterapp.commands.execute('docmanager:save')")
    page.reload()
    lab.wait_for_panel(page)
    began = time.monotonic()
    expect(cell).to_be_visible()
    assert time.monotonic() - began < 5

    panel.get_by_text("Errors (3)").click()
    expect(panel.get_by_role("list", name="Errors")).to_be_visible(timeout=SLOW)
    cell.get_by_role("button", name="Cancel the work of cell In[2]").click()
    expect(cell.get_by_role("progressbar")).to_have_attribute(
        "aria-valuetext", re.compile(r"^100 %.*8 cancelled"), timeout=SLOW
    )

    card.get_by_role("button", name="Scale perch").click()
    form = card.get_by_role("form", name="Scale")
    form.get_by_label("Nodes", exact=True).fill("2")
    form.get_by_role("button", name="Apply").click()
    expect(panel.get_by_role("list", name="Nodes").get_by_role("listitem")).to_have_count(2, timeout=SLOW)
    expect(form).to_have_count(0, timeout=SLOW)

    card.get_by_role("button", name="Stop perch").click()
    card.get_by_role("button", name="Stop it").click()
    ended = panel.get_by_role("listitem", name="Cluster perch, has ended")
    nothing = panel.get_by_text("No cluster is running")
    expect(ended.or_(nothing)).to_be_visible(timeout=SLOW)
    assert lab.fetch_clusters() == []


def test_a_start_that_fails_says_why(lab, page, panel, workspace):
    lab.open(page, workspace)
    lab.open_panel(page)
    panel.get_by_role("button", name="Start a cluster…").click()
    form = panel.get_by_role("form", name="Start a cluster")
    form.get_by_label("Where").select_option("class")
    form.get_by_label("Class").fill("dask.distributed.NoSuchCluster")
    form.get_by_label("Name").fill("dace")
    form.get_by_role("button", name="Start").click()
    card = panel.get_by_role("listitem", name="Cluster dace, has ended")
    expect(card).to_be_visible(timeout=SLOW)
    expect(card).to_contain_text("NoSuchCluster")
    card.get_by_role("button", name="Remove dace from the list").click()
    expect(card).to_have_count(0)
