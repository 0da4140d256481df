"""The cluster card as a user meets it: it is up to date, scales, survives a reload, and ends the cluster."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Locator, Page, expect

INIT = "import shoal\nshoal.init(name='tern', num_cpus=1)"
WORK = """import time
@shoal.remote
def work():
    time.sleep(600)
refs = [work.remote() for _ in range(5)]"""
PLOTS = """@shoal.remote
def quick(seconds):
    import time
    time.sleep(seconds)
    return bytes(200_000)
done = [quick.remote(number / 50) for number in range(10)]
shoal.wait(done, num_returns=10)
shoal.plot.timeline()"""

SLOW = 60_000
pytestmark = [pytest.mark.timeout(300), pytest.mark.usefixtures("page_errors")]


@pytest.fixture
def card(page: Page) -> Locator:
    return page.locator(".jp-NotebookPanel:visible .shoal-cluster-card")


def test_it_lives_scales_survives_a_reload_and_stops(lab, page, notebook, use_theme, card, workspace, shots):
    lab.open(page, workspace)
    notebook.open("card.ipynb", INIT, WORK, "print(shoal.is_initialized())")
    notebook.run(0)
    expect(card).to_contain_text("tasks: 0 running, 0 queued", timeout=SLOW)
    notebook.run(1)
    expect(card).to_contain_text(re.compile(r"tasks: \d running, [1-4] queued"))

    box = card.get_by_label("Nodes")
    box.fill("3")
    box.press("Tab")
    page.keyboard.press("Enter")
    expect(card.get_by_role("status")).to_have_text("There are 3 nodes now.", timeout=SLOW)
    expect(card).to_contain_text("embedded, 3 nodes")
    expect(card).to_contain_text("tasks: 3 running, 2 queued")
    card.screenshot(path=shots / "cluster-card.png")
    use_theme("Dark")
    card.screenshot(path=shots / "cluster-card-dark.png")
    use_theme("Light")

    notebook.save()
    notebook.reload()
    notebook.open("card.ipynb")
    expect(card).to_contain_text("embedded, 3 nodes", timeout=SLOW)
    card.get_by_label("Nodes").fill("4")
    card.get_by_role("button", name="Scale").click()
    expect(card.get_by_role("status")).to_have_text("There are 4 nodes now.", timeout=SLOW)
    expect(card).to_contain_text("tasks: 4 running, 1 queued")

    card.get_by_role("button", name="Stop").click()
    card.get_by_role("button", name="Keep it").click()
    expect(card.get_by_role("button", name="End the cluster")).to_be_hidden()
    card.get_by_role("button", name="Stop").click()
    card.get_by_role("button", name="End the cluster").click()
    expect(card).to_contain_text("this notebook does not use it any more", timeout=SLOW)
    expect(card.get_by_role("button", name="Scale")).to_be_disabled()
    assert notebook.run(2).locator(".jp-OutputArea").inner_text().strip() == "False"


def test_pictures_show_in_the_colours_of_the_notebook(lab, page, notebook, use_theme, workspace, shots):
    lab.open(page, workspace)
    notebook.open("plots.ipynb", f"%load_ext shoal\n{INIT}", PLOTS, "shoal.plot.durations()", "shoal.plot.memory()")
    notebook.run(0)
    for theme, suffix in (("Light", ""), ("Dark", "-dark")):
        use_theme(theme)
        for index, picture in ((1, "timeline"), (2, "durations"), (3, "memory")):
            cell = notebook.run(index)
            frame = cell.frame_locator("iframe")
            expect(frame.locator(".bk-Figure").first).to_be_visible(timeout=SLOW)
            expect(cell.locator("summary").last).to_contain_text(": as a table")
            text = frame.locator("body").evaluate(
                """() => Bokeh.documents.flatMap(d => [...d._all_models.values()])
                        .find(model => model.type === 'Title').text_color"""
            )
            around = page.evaluate(
                "() => getComputedStyle(document.body).getPropertyValue('--jp-ui-font-color1').trim()"
            )
            assert text == around
            cell.locator("iframe").screenshot(path=shots / f"plot-{picture}{suffix}.png")
