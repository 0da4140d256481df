"""The panel in Notebook 7, whose shell is another one. Skipped where Notebook 7 is not installed."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect
from simulated_cluster import SimulatedCluster
from simulated_server import SimulatedServer

pytest.importorskip("notebook", reason="Notebook 7 is not installed")
pytestmark = [pytest.mark.timeout(240), pytest.mark.usefixtures("page_errors")]


def test_it_opens_beside_a_notebook(notebook_7, page, shots):
    name = notebook_7.write_notebook("seven.ipynb", "1 + 1")
    SimulatedServer(page, SimulatedCluster())
    page.goto(f"{notebook_7.url}/notebooks/{name}?token={notebook_7.token}")
    expect(page.locator(".jp-CodeCell")).to_be_visible(timeout=60_000)
    page.locator(".jp-CodeCell .cm-content").click()
    page.keyboard.press("Control+Shift+C")
    page.locator("input.lm-CommandPalette-input").fill("show shoal clusters")
    page.locator(".lm-CommandPalette-item", has_text="Show Shoal Clusters").click()
    panel = page.get_by_role("region", name="Shoal Clusters")
    expect(panel.get_by_role("listitem", name=re.compile("Cluster minnow"))).to_be_visible()
    panel.get_by_role("button", name="Insert a cell that connects to minnow").click()
    expect(page.locator(".jp-CodeCell").nth(1)).to_contain_text('shoal.init("minnow")')
    page.screenshot(path=shots / "panel-notebook7.png")
