"""The panel told by a server that the test plays: what it shows, asks for and survives. A real one: test_panel.py."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, Response, expect
from simulated_cluster import SimulatedCluster
from simulated_server import SimulatedServer

from shoal.launch.dask_view import NOTICE, snapshot_of
from shoal.observe.flame_graph import to_html
from shoal.observe.history import History
from shoal.observe.profiles import Samples

AXE = Path(__file__).parents[2] / "labextension" / "node_modules" / "axe-core" / "axe.min.js"
LIGHT, DARK, CONTRAST = "JupyterLab Light", "JupyterLab Dark", "JupyterLab Dark High Contrast"

pytestmark = [pytest.mark.timeout(240), pytest.mark.usefixtures("page_errors")]


@pytest.fixture
def cluster() -> SimulatedCluster:
    made = SimulatedCluster(gpus=True)
    made.fail(3)
    made.new_cell(40)
    made.wait("waits for 2 CPUs: driver-1 holds them")
    for _ in range(240):
        made.step()
    return made


@pytest.fixture
def server(page: Page, cluster: SimulatedCluster) -> SimulatedServer:
    return SimulatedServer(page, cluster)


def use_theme(page: Page, theme: str) -> None:
    page.evaluate("theme => window.jupyterapp.commands.execute('apputils:change-theme', { theme })", theme)
    page.wait_for_function("theme => document.body.dataset.jpThemeName === theme", arg=theme)
    expect(page.locator("#jupyterlab-splash")).to_have_count(0)


def is_saved(answer: Response, cluster: str) -> bool:
    """Tell whether the page has written to its workspace that this cluster is chosen."""
    request = answer.request
    return request.method == "PUT" and "/api/workspaces/" in request.url and cluster in (request.post_data or "")


def set_width(page: Page, panel: Locator, width: int) -> None:
    """Give the sidebar a width, as dragging its edge does."""
    box = panel.bounding_box()
    assert box is not None
    edge = box["x"] + box["width"] + 1
    page.mouse.move(edge, 400)
    page.mouse.down()
    page.mouse.move(edge + width - box["width"], 400, steps=4)
    page.mouse.up()


def heading(panel: Locator, title: str) -> Locator:
    return panel.get_by_role("button", name=re.compile(f"^{title}"), expanded=None).and_(
        panel.locator(".shoal-Section-button")
    )


def test_it_is_told_and_shows_it(lab, page, panel, workspace, server, cluster, shots):
    lab.open(page, workspace)
    lab.open_panel(page)
    expect(panel.get_by_role("listitem", name=re.compile("Cluster minnow"))).to_be_visible()
    rate = panel.get_by_role("img", name=re.compile("^Tasks.s: "))
    expect(rate).to_be_visible()
    server.say_grids()
    for title in ("Logs", "Events"):
        heading(panel, title).click()
    expect(panel.get_by_role("img", name=re.compile("What 8 executors did"))).to_be_visible()
    page.set_viewport_size({"width": 1280, "height": 3000})
    set_width(page, panel, 340)
    for theme, suffix in ((LIGHT, ""), (DARK, "-dark"), (CONTRAST, "-contrast")):
        use_theme(page, theme)
        panel.screenshot(path=shots / f"panel-live{suffix}.png")
    use_theme(page, LIGHT)
    set_width(page, panel, 240)
    panel.screenshot(path=shots / "panel-live-narrow.png")


def test_no_websocket_it_asks(lab, page, panel, workspace, cluster):
    server = SimulatedServer(page, cluster, live=False)
    lab.open(page, workspace)
    lab.open_panel(page)
    card = panel.get_by_role("listitem", name=re.compile("Cluster minnow"))
    expect(card).to_be_visible()
    cluster.fail(1000)
    cluster.step()
    expect(card.get_by_label("Tasks")).to_contain_text("1,003")
    assert server.heard == []


def test_it_comes_back_when_the_line_breaks(lab, page, panel, workspace, server, cluster):
    lab.open(page, workspace)
    lab.open_panel(page)
    card = panel.get_by_role("listitem", name=re.compile("Cluster minnow"))
    expect(card).to_be_visible()
    server.hang_up()
    cluster.fail(1000)
    cluster.step()
    expect(card.get_by_label("Tasks")).to_contain_text("1,003")
    expect(panel.get_by_role("alert")).to_have_count(0)


def test_it_pauses_while_the_panel_is_hidden(lab, page, panel, workspace, server):
    lab.open(page, workspace)
    lab.open_panel(page)
    expect(panel.get_by_role("listitem", name=re.compile("Cluster minnow"))).to_be_visible()
    page.get_by_role("tab", name="File Browser").click()
    page.wait_for_timeout(0)  # lets the page's message through
    expect(panel).to_be_hidden()
    assert server.heard[-1] == {"type": "pause"}
    lab.open_panel(page)
    page.wait_for_timeout(0)
    assert {"type": "resume"} in server.heard


def test_a_cluster_that_ends_stays_with_its_last_data_until_it_is_dismissed(
    lab, page, panel, workspace, server, cluster, shots
):
    lab.open(page, workspace)
    lab.open_panel(page)
    expect(panel.get_by_role("listitem", name=re.compile("Cluster minnow"))).to_be_visible()
    server.end(cluster, "The cluster has ended.")
    card = panel.get_by_role("listitem", name="Cluster minnow, has ended")
    expect(card).to_contain_text("The cluster has ended.")
    expect(card).to_contain_text(re.compile(r"Last data: \d+ s ago"))
    expect(panel.get_by_text(re.compile(r"“minnow” as it was \d+ s ago")).first).to_be_visible()
    panel.screenshot(path=shots / "panel-ended.png")
    card.get_by_role("button", name="Remove minnow from the list").click()
    expect(panel.get_by_text("No cluster is running")).to_be_visible()


def test_another_version_is_said_to_be_one(lab, page, panel, workspace, server, shots):
    lab.open(page, workspace)
    lab.open_panel(page)
    expect(panel.get_by_role("listitem", name=re.compile("Cluster minnow"))).to_be_visible()
    server.say(type="hello", version=2, shoal="0.9.0")
    expect(panel.get_by_role("alert")).to_contain_text("different versions of shoal")
    expect(panel.get_by_role("alert")).to_contain_text("0.9.0")
    panel.screenshot(path=shots / "panel-problem-versions.png")


def test_work_can_be_cancelled_actors_restarted_and_reasons_asked(lab, page, panel, workspace, server, cluster, shots):
    server.on("POST", "clusters/cluster-1/cancel", lambda query, body: (200, {}))
    server.on("POST", "clusters/cluster-1/actors/.*", lambda query, body: (409, {"message": "It is ending already."}))
    pending = {"task_id": "t", "object_id": "obj-1", "function": "load_batch", "state": "queued"}
    server.on("GET", "clusters/cluster-1/pending", lambda query, body: (200, {"pending": [pending]}))
    why = ["load_batch", "queued", "needs 2 CPUs", "Stop something.", [["driver-1", "busy", "holds them", "", []]]]
    server.on("GET", "clusters/cluster-1/why", lambda query, body: (200, why if query["object"] == "obj-1" else None))
    failure = {
        "function": "train",
        "cell": "In[1]#run-1",
        "count": 3,
        "summary": "ValueError: no",
        "traceback": "Trace",
    }
    server.on("GET", "clusters/cluster-1/failures", lambda query, body: (200, {"failures": [failure]}))
    held = {"object_id": "o", "nbytes": 3 << 20, "where": "memory", "cell": "In[2]", "held_by": ["weights"]}
    pair = [{**held, "object_id": name, "nbytes": 1 << 20, "held_by": ["batches"]} for name in ("p", "q")]
    objects = [held, *pair, {**held, "object_id": "r", "owner": "exec-1", "held_by": ["theirs"]}]

    def release(query, body):
        if body.get("object") == "q":
            return 409, {"message": "`q` is needed by 1 other process."}
        objects[:] = [row for row in objects if row["object_id"] != body.get("object")]
        return 200, {}

    server.on("GET", "clusters/cluster-1/memory", lambda query, body: (200, {"objects": list(objects)}))
    server.on("POST", "clusters/cluster-1/release", release)
    lab.open(page, workspace)
    lab.open_panel(page)

    cell = panel.get_by_role("listitem", name="Cell In[2]")
    bar = cell.get_by_role("progressbar", name="Progress of cell In[2]")
    expect(bar).to_have_attribute("aria-valuetext", re.compile(r"^\d+ %, 40 queued, .* finished$"))
    cell.get_by_role("button", name="Cancel the work of cell In[2]").click()
    force = cell.get_by_role("button", name="End the processes that run the work of cell In[2]")
    force.click()
    expect(force).to_be_enabled()
    tag = {"owner": "driver-1", "cell": "In[2]#run-2"}
    assert server.asked == [
        ("POST", "clusters/cluster-1/cancel", {**tag, "force": False}),
        ("POST", "clusters/cluster-1/cancel", {**tag, "force": True}),
    ]

    expect(panel.get_by_label("Waiting work")).to_contain_text("waits for 2 CPUs: driver-1 holds them")
    panel.get_by_role("button", name="Why does load_batch wait?").click()
    expect(panel.get_by_label("Why it waits")).to_contain_text("What would help: Stop something.")
    expect(panel.get_by_label("Why it waits")).to_contain_text("holds them")

    panel.get_by_text("Errors (3)").click()
    expect(panel.get_by_role("list", name="Errors")).to_contain_text("ValueError: no")
    panel.get_by_text("Traceback", exact=True).click()
    expect(panel.locator(".shoal-Traceback")).to_have_text("Trace")

    panel.get_by_text("3 actors").click()
    actor = panel.get_by_role("listitem", name="Actor cache")
    expect(actor).to_contain_text("alive")
    actor.get_by_role("button", name="Stop actor cache").click()
    actor.get_by_role("button", name="Keep it").click()
    actor.get_by_role("button", name="Stop actor cache").click()
    actor.get_by_role("button", name="Stop it").click()
    expect(actor.get_by_role("alert")).to_have_text("It is ending already.")
    assert server.asked[-1] == ("POST", "clusters/cluster-1/actors/actor-0", {"action": "kill"})

    panel.get_by_text("Objects", exact=True).click()
    expect(panel.get_by_label("Objects by cell and holder")).to_contain_text("weights")
    expect(panel.get_by_label("Objects by cell and holder")).to_contain_text("3.00 MiB")
    stored = panel.get_by_label("Objects by cell and holder")
    expect(stored.get_by_role("button", name="of theirs")).to_have_count(0)
    stored.get_by_role("button", name="Release 3.00 MiB of weights").click()
    question = stored.get_by_role("group", name=re.compile("^Release 3.00 MiB of weights.*told that it is gone"))
    question.get_by_role("button", name="Keep it").click()
    expect(stored).to_contain_text("weights")
    stored.get_by_role("button", name="Release 3.00 MiB of weights").click()
    question.get_by_role("button", name="Release it").click()
    expect(stored).not_to_contain_text("weights")
    assert server.asked[-1] == ("POST", "clusters/cluster-1/release", {"owner": "driver-1", "object": "o"})
    stored.get_by_text("One by one").click()
    stored.get_by_role("button", name="Release 1.00 MiB of batches").last.click()
    stored.get_by_role("button", name="Release it").click()
    expect(stored.get_by_role("alert")).to_have_text("`q` is needed by 1 other process.")
    panel.get_by_role("button", name="Let the notebooks forget").click()
    panel.get_by_text("1 placement group").click()
    expect(panel.get_by_label("Placement groups")).to_contain_text("SPREAD")
    page.set_viewport_size({"width": 1280, "height": 2400})
    panel.screenshot(path=shots / "panel-work.png")


def test_a_dask_cluster_without_shoal_is_no_blank_pane(lab, page, panel, workspace, server, cluster, shots):
    worker = {"host": "10.0.0.9", "nthreads": 4, "memory_limit": 8 << 30, "status": "running"}
    worker["metrics"] = {"cpu": 100.0, "memory": 2 << 30, "task_counts": {"executing": 2, "ready": 5}}
    history = History()
    for second in range(3):
        shown = snapshot_of({"id": "s", "address": "tcp://10.0.0.1:8786", "workers": {"tcp://10.0.0.9:1": worker}},
                            cluster.now + second, history)  # fmt: skip
    cluster.snapshot = shown
    cluster.message = NOTICE
    lab.open(page, workspace)
    lab.open_panel(page)
    card = panel.get_by_role("listitem", name=re.compile("Cluster minnow"))
    expect(card).to_contain_text("Dask only: there is no shoal in this Dask cluster")
    expect(card.get_by_role("button", name="Use minnow in this notebook")).to_have_count(0)
    expect(panel.get_by_role("list", name="Nodes")).to_contain_text("10.0.0.9")
    expect(panel.get_by_role("list", name="Nodes")).to_contain_text("Dask worker")
    expect(panel.get_by_text("its work is not told of by cell")).to_be_visible()
    expect(panel.get_by_role("link", name="Analysis page")).to_have_count(0)
    expect(card).to_contain_text("2 of 4 threads busy")
    card.get_by_role("button", name="Remove minnow").click()
    expect(card.get_by_role("group", name=re.compile("The Dask cluster itself goes on"))).to_be_visible()
    card.get_by_role("button", name="Keep it").click()
    # What Dask does not tell is left out, not said to be nought.
    for label in ("finished", "failed"):
        expect(card.get_by_label("Tasks").get_by_text(label)).to_have_count(0)
    expect(panel.get_by_role("img", name=re.compile("^Tasks.s: "))).to_have_count(0)
    panel.screenshot(path=shots / "panel-dask-only.png")


def test_an_actor_is_profiled(lab, page, panel, workspace, server, shots):
    samples = Samples(5.0, 100.0, 500, 3, (("train", "model.py", 3), ("step", "model.py", 9)),
                      (((0, 1), 400), ((0,), 100)), "py-spy")  # fmt: skip
    html = to_html(samples, "executor-7")
    executor = {"id": "executor-7", "node": "node-0", "actor": "actor-0", "state": "actor"}
    server.on("GET", "clusters/cluster-1/executors", lambda query, body: (200, {"executors": [executor]}))
    server.on("GET", "clusters/cluster-1/logs", lambda query, body: (200, {"lines": [], "offset": 0}))
    server.on("POST", "clusters/cluster-1/profile", lambda query, body: (200, {"html": html}))
    lab.open(page, workspace)
    lab.open_panel(page)
    heading(panel, "Logs").click()
    panel.get_by_label("Log of", exact=True).select_option("actor-0")
    panel.get_by_role("button", name="Profile what executor-7 does for 5 seconds").click()
    graph = panel.frame_locator("iframe[title='Flame graph of executor-7']")
    expect(graph.get_by_role("img", name="flame graph")).to_contain_text("step")
    asked = ("POST", "clusters/cluster-1/profile", {"node": "node-0", "executor": "executor-7", "seconds": 5})
    assert server.asked == [asked]
    with page.expect_download() as download:
        panel.get_by_role("link", name="Download the flame graph").click()
    assert download.value.suggested_filename == "executor-7.html"
    assert download.value.path().read_text() == html
    page.set_viewport_size({"width": 1280, "height": 2400})
    panel.screenshot(path=shots / "panel-profile.png")


def test_logs_are_filtered_and_followed(lab, page, panel, workspace, server):
    lines = ["epoch 1", "epoch 2", "warning: slow"]

    def log(query, body):
        first = 0 if int(query["offset"]) < 0 else int(query["offset"])
        found = [{"text": text, "stream": "stdout"} for text in lines[first:] if query.get("filter", "") in text]
        return 200, {"lines": found, "offset": len(lines)}

    executor = {"id": "executor-7", "node": "node-1", "actor": ""}
    server.on("GET", "clusters/cluster-1/executors", lambda query, body: (200, {"executors": [executor]}))
    server.on("GET", "clusters/cluster-1/logs", log)
    lab.open(page, workspace)
    lab.open_panel(page)
    heading(panel, "Logs").click()
    panel.get_by_label("Log of", exact=True).select_option("executor-7")
    shown = panel.get_by_role("log")
    expect(shown).to_have_accessible_name("Log of executor executor-7")
    expect(shown).to_contain_text("epoch 2")
    lines.append("epoch 3")
    expect(shown).to_contain_text("epoch 3")
    panel.get_by_label("Filter").fill("warning")
    expect(shown).to_have_text("warning: slow")


def test_clusters_are_started_scaled_and_stopped(lab, page, panel, workspace, server, cluster, shots):
    def start(query, body):
        if body["spec"] == {"nodes": 3}:
            server.starts = [{"id": "start-1", "name": body["name"], "state": "starting", "created": 2e9}]
            server.say_list()
            return 202, {"start": "start-1"}
        return 400, {"message": "There is no class `Nope`.", "reason": "spec"}

    specs = [
        {"name": "night", "kind": "dask", "cluster_class": "x.Y"},
        {"name": "bad", "problem": "line 2: no `nods`."},
    ]
    server.on("GET", "specs", lambda query, body: (200, {"specs": specs}))
    server.on("POST", "clusters", start)
    server.on("GET", "starts/start-1", lambda query, body: (200, {"state": "starting", "log": "asking for nodes"}))
    server.on("DELETE", "starts/start-1", lambda query, body: (204, None))
    server.on("PATCH", "clusters/cluster-1", lambda query, body: (200, {}))
    server.on("DELETE", "clusters/cluster-1", lambda query, body: (200, {}))
    lab.open(page, workspace)
    lab.open_panel(page)

    panel.get_by_role("button", name="Start a cluster…").click()
    form = panel.get_by_role("form", name="Start a cluster")
    where = form.get_by_label("Where")
    where.select_option(label="spec “bad”")
    expect(form.get_by_role("alert")).to_have_text("line 2: no `nods`.")
    expect(form.get_by_role("button", name="Start")).to_be_disabled()
    where.select_option(label="a new Dask cluster, by its class")
    form.get_by_label("Options, as JSON").fill("{")
    form.get_by_role("button", name="Start").click()
    expect(form.get_by_role("alert")).to_contain_text("The options are no JSON")
    form.get_by_label("Options, as JSON").fill("{}")
    form.get_by_label("Class").fill("Nope")
    form.get_by_role("button", name="Start").click()
    expect(form.get_by_role("alert")).to_have_text("There is no class `Nope`.")
    where.select_option(label="a Dask cluster that runs, by its address")
    form.get_by_label("Address").fill("tls://10.0.0.4:8786")
    form.get_by_label("CA", exact=True).fill("/a/ca.pem")
    form.get_by_role("button", name="Start").click()
    expect(form.get_by_role("alert")).to_contain_text("TLS needs all three files")
    form.screenshot(path=shots / "panel-start.png")
    where.select_option(label="on this machine")
    form.get_by_label("Nodes", exact=True).fill("3")
    form.get_by_label("Name").fill("pike")
    form.get_by_role("button", name="Start").click()
    started = panel.get_by_role("listitem", name="Cluster pike, starting")
    expect(started.get_by_label("Log of the start")).to_have_text("asking for nodes")
    panel.screenshot(path=shots / "panel-starting.png")
    started.get_by_role("button", name="Give up").click()
    expect(form).to_have_count(0)

    card = panel.get_by_role("listitem", name=re.compile("Cluster minnow"))
    card.get_by_role("button", name="Scale minnow").click()
    form = card.get_by_role("form", name="Scale")
    form.get_by_label("Nodes", exact=True).fill("9")
    form.get_by_role("button", name="Apply").click()
    expect(form).to_have_count(0)
    card.get_by_role("button", name="Scale minnow").click()
    form.get_by_label("Change").select_option("adaptive")
    form.get_by_label("At most").fill("12")
    form.get_by_role("button", name="Apply").click()
    expect(form).to_have_count(0)
    card.get_by_role("button", name="Stop minnow").click()
    expect(card.get_by_role("button", name="Keep it")).to_be_focused()
    card.get_by_role("button", name="Stop it").click()
    expect(card.get_by_role("button", name="Stop minnow")).to_be_enabled()
    assert server.asked[-4:] == [
        ("DELETE", "starts/start-1", None),
        ("PATCH", "clusters/cluster-1", {"nodes": 9, "force": False}),
        ("PATCH", "clusters/cluster-1", {"adaptive": {"minimum": 4, "maximum": 12}}),
        ("DELETE", "clusters/cluster-1", None),
    ]


def test_what_is_open_and_chosen_survives_a_reload(lab, page, panel, workspace, server, cluster):
    server.clusters.append(SimulatedCluster("cluster-2", "pike"))
    lab.open(page, workspace)
    lab.open_panel(page)
    heading(panel, "Live").click()
    heading(panel, "Events").click()
    # the state of a page is written to its workspace a moment after it has changed
    with page.expect_response(lambda answer: is_saved(answer, "cluster-2")):
        panel.get_by_role("button", name="pike", exact=True).click()
    expect(panel.get_by_role("button", name="pike", exact=True)).to_have_attribute("aria-pressed", "true")
    page.reload()
    lab.wait_for_panel(page)
    expect(heading(panel, "Live")).to_have_attribute("aria-expanded", "false")
    expect(heading(panel, "Events")).to_have_attribute("aria-expanded", "true")
    expect(panel.get_by_role("button", name="pike", exact=True)).to_have_attribute("aria-pressed", "true")


ADD_SECTIONS = """async () => {
    const { pluginRegistry } = window.jupyterapp;
    const { provides } = pluginRegistry._plugins.get('shoal-labextension:sections');
    const sections = await pluginRegistry.resolveRequiredService(provides);
    const $$typeof = Symbol.for('react.element');
    const draw = text => ({ $$typeof, type: 'p', key: null, ref: null, props: { children: text } });
    sections.add({
        id: 'trials', title: 'Trials', rank: 60, open: true, badge: () => '7',
        render: ({ cluster }) => draw(`trials of ${cluster.name}`)
    });
    sections.add({ id: 'broken', title: 'Broken', rank: 70, open: true, render: () => { throw new Error('oh no'); } });
}"""


def test_another_extension_adds_sections(lab, page, panel, workspace, server):
    lab.open(page, workspace)
    lab.open_panel(page)
    expect(heading(panel, "Events")).to_be_visible()
    page.evaluate(ADD_SECTIONS)
    expect(heading(panel, "Trials")).to_have_text("Trials7")
    expect(panel.get_by_text("trials of minnow")).to_be_visible()
    expect(panel.get_by_text("This part cannot be shown: oh no")).to_be_visible()
    expect(heading(panel, "Events")).to_be_visible()


def test_settings_hide_sections(lab, page, panel, workspace, server):
    lab.open(page, workspace)
    lab.open_panel(page)
    lab.put_setting("clusters", hiddenSections=["events"])
    page.reload()
    lab.open_panel(page)
    expect(heading(panel, "Work")).to_be_visible()
    expect(heading(panel, "Events")).to_have_count(0)
    lab.put_setting("clusters")


def test_arrow_keys_go_from_heading_to_heading(lab, page, panel, workspace, server):
    lab.open(page, workspace)
    lab.open_panel(page)
    first = heading(panel, "Clusters")
    first.focus()
    page.keyboard.press("ArrowDown")
    expect(heading(panel, "Live")).to_be_focused()
    page.keyboard.press("Enter")
    expect(heading(panel, "Live")).to_have_attribute("aria-expanded", "false")
    page.keyboard.press("End")
    expect(heading(panel, "Events")).to_be_focused()
    page.keyboard.press("ArrowDown")
    expect(first).to_be_focused()
    expect(heading(panel, "Events")).to_have_attribute("tabindex", "-1")


@pytest.mark.skipif(not AXE.exists(), reason="needs the packages of the JavaScript side (npm ci)")
@pytest.mark.parametrize("theme", [LIGHT, DARK])
def test_axe_finds_nothing_serious(lab, page, panel, workspace, server, theme):
    lab.open(page, workspace)
    lab.open_panel(page)
    use_theme(page, theme)
    server.say_grids()
    for title in ("Logs", "Events"):
        heading(panel, title).click()
    for summary in panel.locator("summary").all():
        if summary.is_visible():
            summary.click()
    panel.get_by_role("button", name="Start a cluster…").click()
    expect(panel.get_by_role("form")).to_be_visible()
    page.add_script_tag(path=str(AXE))
    found = page.evaluate("() => axe.run('#shoal-panel', { resultTypes: ['violations'] })")
    serious = [
        (one["id"], [node["html"][:200] + " " + node["failureSummary"][:300] for node in one["nodes"]])
        for one in found["violations"]
        if one["impact"] in ("serious", "critical")
    ]
    assert serious == []
