"""The stop button in JupyterLab's toolbar, while the cluster works for a cell."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

START = "%load_ext shoal\nimport shoal\nshoal.init(num_cpus=2);"
ENDLESS = """%%remote --each "run in range(3)"
import time
print('begun', run)
while True:
    time.sleep(0.01)"""
AFTER = "%%remote\nprint('the cluster answers', 6 * 7)"

pytestmark = [pytest.mark.timeout(300), pytest.mark.usefixtures("page_errors")]


def test_it_says_what_it_stopped_and_frees_the_executors(lab, page, notebook, workspace, shots):
    lab.open(page, workspace)
    notebook.open("stop.ipynb", START, ENDLESS, AFTER)
    notebook.run(0)
    cell = notebook.start(1)
    expect(cell).to_contain_text(re.compile(r"begun \d.*begun \d", re.DOTALL), timeout=60_000)
    page.locator(".jp-NotebookPanel:visible").get_by_role("button", name="Interrupt the kernel").click()
    notebook.finish(cell)
    expect(cell).to_contain_text(re.compile(r"KeyboardInterrupt: stopped 3 of 3 runs of `In\[2\]` in \d\.\d s\."))
    cell.screenshot(path=shots / "stopped.png")
    free = lab.wait_for_cluster(
        lambda cluster: (
            cluster["tasks"]["running"] == 0
            and cluster["tasks"]["queued"] == 0
            and all(node["cpus_used"] == 0 for node in cluster["nodes"])
        )
    )
    assert free["nodes"][0]["cpus"] == 2
    expect(notebook.run(2)).to_contain_text("the cluster answers 42")
