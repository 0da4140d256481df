"""The panel as a user meets it: empty, with a cluster of a notebook, and after that notebook's end."""

from __future__ import annotations

import os
import re
import socket
import time

import pytest
from playwright.sync_api import expect

from shoal.launch import registry
from shoal.launch.registry import Connection

LOAD = "%load_ext shoal"
INIT = "import shoal\nshoal.init(name='minnow', num_cpus=2)"
REMOTE = """%%remote
import os
total = sum(range(10))
print('total', total, 'computed elsewhere')
remote_pid = os.getpid()"""
CHECK = "import os\nprint('another process:', remote_pid != os.getpid())"
BUSY = """import time
@shoal.remote
def train(x):
    time.sleep(60)
@shoal.remote
class Predictor:
    def ready(self):
        return True
predictors = [Predictor.remote(), Predictor.remote()]
print([shoal.get(p.ready.remote()) for p in predictors])
refs = [train.remote(i) for i in range(12)]"""

pytestmark = [pytest.mark.timeout(300), pytest.mark.usefixtures("page_errors", "no_clusters_left")]


def test_without_clusters_it_says_what_to_do(lab, page, use_theme, panel, workspace, shots):
    lab.open(page, workspace)
    lab.open_panel(page)
    expect(panel.get_by_text("No cluster is running")).to_be_visible()
    page.screenshot(path=shots / "panel-empty.png")
    use_theme("Dark")
    page.screenshot(path=shots / "panel-empty-dark.png")
    use_theme("Light")


def test_refresh_button_asks_the_server(lab, page, panel, workspace):
    lab.open(page, workspace)
    lab.open_panel(page)
    expect(panel.get_by_text("No cluster is running")).to_be_visible()
    # asked so seldom that a request within the time of the test can only be that of the button
    lab.put_setting("clusters", refreshSeconds=3600)
    page.reload()
    lab.open_panel(page)
    expect(panel.get_by_text("No cluster is running")).to_be_visible()
    with page.expect_response("**/shoal/api/v1/clusters*") as response:
        panel.get_by_role("button", name="Refresh the list of clusters").click()
    assert response.value.ok
    lab.put_setting("clusters")


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (404, "The server part of shoal is not enabled"),
        (403, "You may not see the clusters of this server"),
        (500, "The Jupyter server gave an answer that the panel cannot read"),
        (None, "The Jupyter server does not answer"),
    ],
)
def test_failures_are_explained(lab, page, panel, workspace, shots, status, words):
    clicked = []

    def answer(route):
        if clicked:
            route.continue_()
        elif status is None:
            route.abort()
        else:
            route.fulfill(status=status, body="{}")

    # The panel asks again by itself, too: only what the click asks for, and what comes later, is answered.
    page.expose_function("noteClick", lambda: clicked.append(True))
    page.add_init_script(
        "document.addEventListener('click', e => e.target.closest('[role=alert] button') && noteClick(), true)"
    )
    page.route("**/shoal/api/v1/clusters*", answer)
    page.route_web_socket(re.compile("/shoal/api/v1/live"), lambda line: line.close())
    lab.open(page, workspace)
    lab.open_panel(page)
    alert = panel.get_by_role("alert")
    expect(alert).to_contain_text(words)
    panel.screenshot(path=shots / f"panel-problem-{status}.png")
    alert.get_by_role("button", name="Try again").click()
    expect(alert).to_have_count(0)
    assert clicked
    expect(panel.get_by_text("No cluster is running")).to_be_visible()


def test_cluster_that_does_not_answer_is_told_apart(lab, page, panel, workspace, shots, monkeypatch):
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(lab.runtime))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"tcp://127.0.0.1:{listener.getsockname()[1]}"
    connection = Connection(
        "cluster-0", "pike", address, "attached", os.getpid(), socket.gethostname(), time.time(), "a.py", "3.11"
    )
    entry = registry.register(connection)
    try:
        lab.open(page, workspace)
        lab.open_panel(page)
        card = panel.get_by_role("listitem", name="Cluster pike, not reachable")
        expect(card).to_contain_text("on a Dask cluster")
        expect(card.locator(".shoal-Card-message")).not_to_be_empty()
        panel.screenshot(path=shots / "panel-unreachable.png")
    finally:
        entry.remove()


def test_button_opens_a_notebook_with_the_starting_cell(lab, page, panel, workspace):
    lab.open(page, workspace)
    lab.open_panel(page)
    panel.get_by_role("button", name="Insert into new notebook").click()
    cell = page.locator(".jp-NotebookPanel:visible .jp-CodeCell .cm-content").first
    expect(cell).to_contain_text("%load_ext shoal", timeout=60_000)
    expect(cell).to_contain_text("shoal.init()")
    expect(panel.get_by_role("button", name="Insert into notebook")).to_be_visible()


def test_command_inserts_the_starting_cell(lab, page, notebook, workspace, shots):
    lab.open(page, workspace)
    notebook.open("insert.ipynb", "1 + 1")
    cells = page.locator(".jp-NotebookPanel:visible .jp-CodeCell")
    expect(cells).to_have_count(1)
    page.keyboard.press("Control+Shift+C")
    page.locator("input.lm-CommandPalette-input").fill("starts a shoal cluster")
    page.locator(".lm-CommandPalette-item", has_text="Insert Cell That Starts a Shoal Cluster").click()
    expect(cells).to_have_count(2)
    lines = cells.nth(1).locator(".cm-line")
    expect(lines).to_have_text(["%load_ext shoal", "import shoal", "", "shoal.init()"])


def test_panel_shows_the_cluster_of_a_notebook(lab, page, notebook, use_theme, panel, workspace, shots):
    lab.open(page, workspace)
    lab.open_panel(page)
    notebook.open("digits.ipynb", LOAD, INIT, REMOTE, CHECK, BUSY)
    notebook.run(0)
    notebook.run(1)

    card = panel.get_by_role("listitem", name=re.compile("Cluster minnow"))
    expect(card).to_be_visible(timeout=10_000)
    expect(card.get_by_text("digits.ipynb")).to_be_visible()
    expect(card.get_by_role("meter", name="CPU").first).to_have_attribute(
        "aria-valuetext", re.compile(r"^\d+ %, \d of 2 CPUs granted$")
    )
    expect(card.get_by_role("meter", name="Memory").first).to_have_attribute(
        "aria-valuetext", re.compile(r"^\d+ %, .* of .* GiB$")
    )

    expect(notebook.run(2).locator(".jp-OutputArea")).to_contain_text("total 45 computed elsewhere")
    expect(notebook.run(3).locator(".jp-OutputArea")).to_contain_text("another process: True")

    expect(notebook.run(4).locator(".jp-OutputArea")).to_contain_text("[True, True]")
    expect(card).to_have_accessible_name("Cluster minnow, busy")
    expect(card.get_by_label("Tasks")).to_have_text(re.compile(r"[1-9]\d*\s*running|running\s*[1-9]"))
    expect(panel.get_by_role("list", name="Nodes").get_by_role("listitem")).to_have_count(1)
    panel.get_by_text("2 actors").click()
    expect(panel.get_by_role("listitem", name="Actor Predictor")).to_have_count(2)
    expect(panel.get_by_role("listitem", name="Actor Predictor").first).to_contain_text("alive")
    cell = panel.get_by_role("listitem", name="Cell In[5]")
    expect(cell.get_by_role("progressbar")).to_have_attribute("aria-valuetext", re.compile(r"\d running, \d+ queued"))
    panel.get_by_role("button", name="Go to cell In[3]").click()
    cells = page.locator(".jp-NotebookPanel:visible .jp-CodeCell")
    expect(cells.nth(2)).to_have_class(re.compile("jp-mod-active"))
    page.locator(".jp-NotebookPanel:visible .jp-CodeCell").nth(1).locator(".jp-InputArea").scroll_into_view_if_needed()
    page.screenshot(path=shots / "panel.png")
    panel.screenshot(path=shots / "panel-only.png")

    use_theme("Dark")
    page.screenshot(path=shots / "panel-dark.png")
    use_theme("Light")


def test_second_notebook_connects_to_the_cluster_of_the_first(lab, page, notebook, panel, workspace):
    lab.open(page, workspace)
    lab.open_panel(page)
    notebook.open("first.ipynb", LOAD, INIT)
    notebook.run(0)
    notebook.run(1)
    notebook.open("second.ipynb", "")
    panel.get_by_role("button", name="Insert a cell that connects to minnow").click()
    cell = page.locator(".jp-NotebookPanel:visible .jp-CodeCell").first
    expect(cell.locator(".cm-content")).to_contain_text('shoal.init("minnow")')
    notebook.run(0)
    expect(cell.locator(".jp-OutputArea")).to_contain_text("minnow")
    assert len(lab.fetch_clusters()) == 1


def test_second_notebook_uses_the_cluster_without_a_cell(lab, page, notebook, panel, workspace):
    lab.open(page, workspace)
    lab.open_panel(page)
    notebook.open("first.ipynb", LOAD, INIT)
    notebook.run(0)
    notebook.run(1)
    names = "names = sorted(set(globals()) - {'names'})"
    script = ("before = None", names, f"{names}; print(names)", "%remote __import__('os').getpid()", "%remote status")
    notebook.open("third.ipynb", *script)
    notebook.run(0)
    panel.get_by_role("button", name="Use minnow in this notebook").click()
    expect(panel.get_by_role("button", name="Use minnow in this notebook")).to_be_enabled(timeout=30_000)
    # no cell was added, no name of the user's was made or changed
    cells = page.locator(".jp-NotebookPanel:visible .jp-CodeCell")
    expect(cells).to_have_count(5)
    said = notebook.run(2).locator(".jp-OutputArea").inner_text()
    assert "'before'" in said and "'shoal'" not in said
    expect(notebook.run(3).locator(".jp-OutputArea")).to_contain_text(re.compile(r"\d+"))
    expect(notebook.run(4).locator(".jp-OutputArea")).to_contain_text("minnow")
    assert len(lab.fetch_clusters()) == 1


def test_a_cell_is_placed_from_its_toolbar(lab, page, notebook, panel, workspace, shots):
    lab.put_setting("cell-chip", enabled=True)
    try:
        lab.open(page, workspace)
        lab.open_panel(page)
        source = "import os\nprint('another process:', pid != os.getpid())"
        notebook.open("placed.ipynb", LOAD, INIT, "import os\npid = os.getpid()", source)
        for index in range(3):
            notebook.run(index)
        cell = page.locator(".jp-NotebookPanel:visible .jp-CodeCell").nth(3)
        cell.locator(".cm-content").click()
        choice = cell.get_by_label("Where this cell runs")
        expect(choice).to_have_value("0")
        choice.select_option("any node")
        expect(notebook.run(3).locator(".jp-OutputArea")).to_contain_text("another process: True")
        cell.locator(".cm-content").click()
        expect(cell.locator(".shoal-Chip")).to_contain_text(re.compile("✓ 1 in"), timeout=20_000)
        page.screenshot(path=shots / "cell-chip.png")
        choice.select_option("in the notebook")
        expect(notebook.run(3).locator(".jp-OutputArea")).to_contain_text("another process: False")
    finally:
        lab.put_setting("cell-chip")


def test_it_works_while_the_kernel_is_busy(lab, page, notebook, panel, workspace, tmp_path):
    os.mkfifo(tmp_path / "gate")
    hold = f"""import time
hold = shoal.remote(lambda: time.sleep(600))
refs = [hold.remote() for _ in range(3)]
print(open({str(tmp_path / "gate")!r}).read())"""
    lab.open(page, workspace)
    lab.open_panel(page)
    notebook.open("busy.ipynb", LOAD, INIT, hold)
    notebook.run(0)
    notebook.run(1)
    held = notebook.start(2)
    cell = panel.get_by_role("listitem", name="Cell In[3]")
    expect(cell.get_by_role("progressbar")).to_have_attribute("aria-valuetext", re.compile(r"2 running, 1 queued"))
    cell.get_by_role("button", name="Cancel the work of cell In[3]").click()
    expect(cell).to_contain_text("3 cancelled")
    expect(held.locator(".jp-InputPrompt")).to_have_text("[*]:")
    (tmp_path / "gate").write_text("the kernel was busy all the time")
    expect(notebook.finish(held).locator(".jp-OutputArea")).to_contain_text("the kernel was busy all the time")


def test_cluster_leaves_with_its_kernel(lab, page, notebook, panel, workspace):
    lab.open(page, workspace)
    lab.open_panel(page)
    notebook.open("leaving.ipynb", LOAD, INIT)
    notebook.run(0)
    notebook.run(1)
    card = panel.get_by_role("listitem", name=re.compile("Cluster minnow"))
    expect(card).to_be_visible(timeout=10_000)
    lab.stop_kernels()
    ended = panel.get_by_role("listitem", name="Cluster minnow, has ended")
    nothing = panel.get_by_text("No cluster is running")
    expect(ended.or_(nothing)).to_be_visible(timeout=20_000)
    if ended.is_visible():  # the page was told of it as it happened
        ended.get_by_role("button", name="Remove minnow from the list").click()
    expect(nothing).to_be_visible(timeout=20_000)


def test_keyboard_alone_reaches_every_button(lab, page, panel, workspace):
    lab.open(page, workspace)
    lab.open_panel(page)
    expect(panel.get_by_text("No cluster is running")).to_be_visible()
    panel.get_by_role("button", name="Insert a cell that starts a cluster").focus()
    page.keyboard.press("Tab")
    expect(panel.get_by_role("button", name="Refresh the list of clusters")).to_be_focused()
    page.keyboard.press("Tab")
    expect(panel.get_by_role("button", name="Clusters", exact=True)).to_be_focused()
    page.keyboard.press("Tab")
    expect(panel.get_by_role("button", name="Insert into new notebook")).to_be_focused()
