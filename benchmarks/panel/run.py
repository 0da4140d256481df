"""What the panel costs a page: 100 nodes, 10,000 tasks a second and what 64 executors do, told four times a second.

Run ``make bench-panel`` on a quiet machine. A real JupyterLab in Chromium; the cluster is simulated and told by the
code that tells of real ones (``tests/helpers/simulated_cluster.py``), all sections and lists of the panel are open.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import secrets
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from playwright.sync_api import CDPSession, Page, sync_playwright

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "helpers"))

from simulated_cluster import SimulatedCluster
from simulated_server import SimulatedServer

NODES, TASKS_PER_SECOND, FUNCTIONS, RATE = 100, 10_000, 40, 4.0
MIB = 1 << 20
COUNT_FRAMES = """() => {
    const seen = window.shoalFrames = { times: [], tasks: [] };
    const count = time => { seen.times.push(time); requestAnimationFrame(count); };
    requestAnimationFrame(count);
    new PerformanceObserver(list => seen.tasks.push(...list.getEntries().map(one => one.duration)))
        .observe({ entryTypes: ['longtask'] });
}"""


@contextlib.contextmanager
def jupyterlab() -> Iterator[str]:
    """Run a JupyterLab; gives the address of a page in a workspace that is called ``WORKSPACE``."""
    with tempfile.TemporaryDirectory() as home, socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
        probe.close()
        token = secrets.token_hex(16)
        settings = Path(home, "settings", "@jupyterlab", "apputils-extension")
        settings.mkdir(parents=True)
        no_news = json.dumps({"fetchNews": "false", "checkForUpdates": False})
        (settings / "notification.jupyterlab-settings").write_text(no_news)
        folders = {
            "JUPYTER_CONFIG_DIR": "config",
            "JUPYTER_DATA_DIR": "data",
            "JUPYTER_RUNTIME_DIR": "runtime",
            "JUPYTERLAB_SETTINGS_DIR": "settings",
            "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
        }
        environ = {**os.environ, "HOME": home, **{name: os.path.join(home, path) for name, path in folders.items()}}
        command = [
            *(sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"),
            *("--ServerApp.ip=127.0.0.1", f"--ServerApp.port={port}", f"--ServerApp.root_dir={home}"),
            *(f"--IdentityProvider.token={token}", "--LabApp.expose_app_in_browser=True"),
        ]
        process = subprocess.Popen(command, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            url, deadline = f"http://127.0.0.1:{port}", time.monotonic() + 60
            while True:
                try:
                    urllib.request.urlopen(f"{url}/api/status?token={token}", timeout=5).close()
                    break
                except OSError:
                    if process.poll() is not None or time.monotonic() > deadline:
                        raise
                    time.sleep(0.1)
            yield f"{url}/lab/workspaces/WORKSPACE?token={token}"
        finally:
            process.terminate()
            process.wait(20)


def open_panel(page: Page, url: str) -> None:
    """Load JupyterLab and wait until it stands still."""
    page.goto(url)
    page.wait_for_function("() => window.jupyterapp !== undefined")
    page.evaluate("() => window.jupyterapp.restored.then(() => undefined)")
    page.wait_for_selector("#jupyterlab-splash", state="detached")


def heap(cdp: CDPSession) -> float:
    """Return the MiB of the page's JavaScript that are still used."""
    cdp.send("HeapProfiler.collectGarbage")
    metrics = {one["name"]: one["value"] for one in cdp.send("Performance.getMetrics")["metrics"]}
    return float(metrics["JSHeapUsedSize"]) / MIB


def feed(page: Page, server: SimulatedServer, seconds: float) -> None:
    """Tell of the cluster at the rate that is measured."""
    begin = time.monotonic()
    for number in range(int(seconds * RATE)):
        server.step(1 / RATE)
        if number % 2 == 0:
            server.say_grids()
        page.wait_for_timeout(max(0.0, 1000 * (begin + (number + 1) / RATE - time.monotonic())))


def measure(page: Page, url: str, seconds: float) -> dict[str, Any]:
    """Return the figures of one round."""
    cluster = SimulatedCluster(
        num_nodes=NODES, tasks_per_second=TASKS_PER_SECOND, num_functions=FUNCTIONS, num_actors=100, gpus=True
    )
    for _ in range(180):
        cluster.step(1.0)
    server = SimulatedServer(page, cluster)
    cdp = page.context.new_cdp_session(page)
    cdp.send("Performance.enable")
    open_panel(page, url)
    before = heap(cdp)
    began = time.perf_counter()
    page.get_by_role("tab", name="Shoal Clusters").click()
    page.get_by_role("meter", name="CPU").first.wait_for()
    opened = time.perf_counter() - began
    for title in ("Logs", "Events"):
        page.locator(".shoal-Section-button", has_text=title).click()
    for summary in page.locator(".shoal-Panel summary").all():
        if not summary.evaluate("node => node.parentElement.open"):
            summary.click()
    server.say_grids()
    page.evaluate(COUNT_FRAMES)
    feed(page, server, seconds)
    seen = page.evaluate("() => window.shoalFrames")
    gaps = [after - before for before, after in zip(seen["times"], seen["times"][1:], strict=False)]
    in_second: dict[int, int] = {}
    for moment in seen["times"]:
        in_second[int(moment / 1000)] = in_second.get(int(moment / 1000), 0) + 1
    whole = sorted(in_second)[1:-1]
    return {
        "seconds from a click to data": opened,
        "frames per second": 1000 * len(gaps) / sum(gaps),
        "frames in the slowest second": min(in_second[second] for second in whole),
        "longest time without a frame, ms": max(gaps),
        "busy for more than 50 ms, ms per second": sum(seen["tasks"]) / seconds,
        "MiB of JupyterLab without the panel": before,
        "MiB with it, at the end": heap(cdp),
        "elements in the panel": page.locator(".shoal-Panel *").count(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=30.0, help="of each round")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    chromium = os.environ.get("SHOAL_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        sys.exit("There is no Chromium here: install it, or name it in SHOAL_CHROMIUM.")
    rounds = []
    with jupyterlab() as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        for number in range(options.rounds):
            print(f"round {number + 1} of {options.rounds}", file=sys.stderr)
            with browser.new_context(viewport={"width": 1280, "height": 800}) as context:
                # of its own: in the workspace of the round before the panel is open already
                workspace = url.replace("WORKSPACE", f"round-{number}")
                rounds.append(measure(context.new_page(), workspace, options.seconds))
    print(
        f"{NODES} nodes, {TASKS_PER_SECOND:,} tasks/s of {FUNCTIONS} functions; changes at {RATE:g} Hz, "
        f"the grid at {RATE / 2:g} Hz\n"
        f"Python {platform.python_version()}, {os.cpu_count()} CPUs, {options.rounds} rounds of {options.seconds:g} s: "
        "median (least to most)\n"
    )
    for name in rounds[0]:
        values = [one[name] for one in rounds]
        print(f"{name:<44} {statistics.median(values):>10,.2f} ({min(values):,.2f} to {max(values):,.2f})")


if __name__ == "__main__":
    main()
