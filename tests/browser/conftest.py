"""A real JupyterLab with real kernels, a fresh workspace for each test, and the Chromium of the machine."""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import pytest
from playwright.sync_api import Locator, Page, expect

CHROMIUM = os.environ.get("SHOAL_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
CHROMIUM_ARGS = [
    "--no-sandbox",  # as root there is none
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--force-prefers-reduced-motion",
]
START_TIMEOUT = 60.0
#: Where the servers are, as JupyterHub has them: nothing of ours may take `/` for the server's beginning.
BASE_URL = "/user/ada"
#: A kernel, a head and its first executors are up in a few seconds; a busy machine may take ten times that.
SLOW = 60_000

expect.set_options(timeout=15_000)


@dataclass(frozen=True)
class Lab:
    """A running JupyterLab server and the ways a test enters it."""

    url: str
    token: str
    home: Path

    @property
    def root(self) -> Path:
        """The folder that JupyterLab shows."""
        return self.home / "root"

    @property
    def runtime(self) -> Path:
        """Where connection files are."""
        return self.home / "runtime"

    def open(self, page: Page, workspace: str) -> None:
        """Load JupyterLab with an empty workspace and wait until it stands still."""
        page.goto(f"{self.url}/lab/workspaces/{workspace}?token={self.token}")
        page.wait_for_function("() => window.jupyterapp !== undefined")
        page.evaluate("() => window.jupyterapp.restored.then(() => undefined)")
        page.wait_for_selector("#jupyterlab-splash", state="detached")
        page.wait_for_selector(".jp-Launcher", state="visible")

    def write_notebook(self, name: str, *sources: str) -> str:
        """Put a notebook with these code cells into the server's folder."""
        kernel = {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}
        cells = [nbformat.v4.new_code_cell(source) for source in sources]
        notebook = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})
        nbformat.write(notebook, self.root / name)
        return name

    def open_panel(self, page: Page) -> None:
        """Show the panel as a user does, through its tab in the sidebar."""
        page.get_by_role("tab", name="Shoal Clusters").click()
        expect(page.get_by_role("region", name="Shoal Clusters")).to_be_visible()

    def wait_for_panel(self, page: Page) -> None:
        """Wait for the panel of a page that was loaded again with the panel open."""
        page.wait_for_function("() => window.jupyterapp !== undefined")
        page.evaluate("() => window.jupyterapp.restored.then(() => undefined)")
        expect(page.get_by_role("region", name="Shoal Clusters")).to_be_visible()

    def fetch_clusters(self) -> list[dict[str, Any]]:
        """Ask the server extension as the panel does."""
        return self.get("/shoal/api/v1/clusters")["clusters"]

    def wait_for_cluster(self, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Ask the server extension for the only cluster until that is true of its snapshot, which is returned."""
        deadline = time.monotonic() + 20
        while True:
            (cluster,) = self.fetch_clusters()
            if cluster["snapshot"] is not None and holds(cluster["snapshot"]):
                return cluster["snapshot"]
            assert time.monotonic() < deadline, cluster
            time.sleep(0.1)  # the server has no events

    def stop_kernels(self) -> None:
        """End every kernel, as *Shut Down All* does."""
        for kernel in self.get("/api/kernels"):
            self.get(f"/api/kernels/{kernel['id']}", method="DELETE")

    def put_setting(self, plugin: str, **values: object) -> None:
        """Write the user's settings of one of our plugins, as the settings editor does; none restores them."""
        path = self.home / "settings" / "shoal-labextension" / f"{plugin}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values))

    def is_up(self) -> bool:
        """Tell whether the server answers."""
        try:
            self.get("/api/status")
        except OSError:
            return False
        return True

    def get(self, path: str, method: str = "GET") -> Any:
        """Send a request of an authenticated user; return the JSON of the answer."""
        request = urllib.request.Request(
            self.url + path, headers={"Authorization": f"token {self.token}"}, method=method
        )
        with urllib.request.urlopen(request, timeout=30) as response:
            body = response.read()
        return json.loads(body) if body else None


@dataclass(frozen=True)
class Notebook:
    """The notebook in the front of a page."""

    lab: Lab
    page: Page

    def open(self, name: str, *sources: str) -> None:
        """Open a notebook of that name, with these code cells if there are any, in JupyterLab; wait for its kernel.

        By command, not by a `/tree/` address: JupyterLab then activates the notebook once more, late, which takes the
        focus from whatever the test did meanwhile.
        """
        if sources:
            self.lab.write_notebook(name, *sources)
        self.page.evaluate(
            """async path => {
                const widget = await window.jupyterapp.commands.execute('docmanager:open', { path });
                await widget.revealed;
                await widget.context.ready;
                await widget.sessionContext.ready;
            }""",
            name,
        )
        indicator = self.page.locator(".jp-NotebookPanel:visible .jp-Notebook-ExecutionIndicator")
        expect(indicator).to_have_attribute("data-status", "idle", timeout=SLOW)

    def open_alone(self, server: Lab, name: str) -> None:
        """Open a notebook in a page of Notebook 7 and wait for its kernel."""
        self.page.goto(f"{server.url}/notebooks/{name}?token={server.token}")
        self.page.wait_for_function(
            "() => window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel?.status === 'idle'",
            timeout=SLOW,
        )

    def cell(self, index: int) -> Locator:
        """Return a code cell, by its place among them."""
        return self.page.locator(".jp-NotebookPanel:visible .jp-CodeCell").nth(index)

    def start(self, index: int) -> Locator:
        """Have a cell run, by keyboard, and return it at once."""
        cell = self.cell(index)
        cell.locator(".cm-content").click()
        self.page.keyboard.press("Shift+Enter")
        return cell

    def finish(self, cell: Locator) -> Locator:
        """Wait until a cell has run, and return it."""
        expect(cell.locator(".jp-InputPrompt")).to_have_text(re.compile(r"\[\d+\]:"), timeout=SLOW)
        return cell

    def run(self, index: int) -> Locator:
        """Run a cell to its end and return it."""
        return self.finish(self.start(index))

    def wait_for_text(self, index: int, text: str) -> None:
        """Wait until the plain text of a cell's outputs, which the page does not show, has *text* in it."""
        self.page.wait_for_function(
            """([index, text]) => {
                const cell = window.jupyterapp.shell.currentWidget.content.model.cells.get(index);
                return cell.outputs.toJSON().some(output => String(output.data?.['text/plain']).includes(text));
            }""",
            arg=[index, text],
        )

    def save(self) -> None:
        """Save the notebook, as its button does."""
        self.page.evaluate("() => window.jupyterapp.commands.execute('docmanager:save')")

    def reload(self) -> None:
        """Reload the page and wait until it is there again, with its notebooks."""
        self.page.reload()
        self.page.wait_for_function("() => window.jupyterapp !== undefined")
        self.page.evaluate("() => window.jupyterapp.restored.then(() => undefined)")

    def saved_outputs(self, name: str, index: int) -> list[Any]:
        """Return the outputs of a cell as the file has them."""
        return list(nbformat.read(self.lab.root / name, 4).cells[index].outputs)


@pytest.fixture
def notebook(lab: Lab, page: Page) -> Notebook:
    """Run cells of the notebook in the front of the page."""
    return Notebook(lab, page)


@pytest.fixture(autouse=True)
def _no_kernels_left(lab: Lab) -> Iterator[None]:
    yield
    lab.stop_kernels()


@pytest.fixture
def panel(page: Page) -> Locator:
    """The panel of the page."""
    return page.get_by_role("region", name="Shoal Clusters")


@pytest.fixture
def no_clusters_left(lab: Lab) -> Iterator[None]:
    """End what a test has started, and wait until nothing is listed."""
    yield
    lab.stop_kernels()
    deadline = time.monotonic() + 30
    for cluster in lab.fetch_clusters():
        if cluster["kind"] == "detached":
            lab.get(f"/shoal/api/v1/clusters/{cluster['id']}", method="DELETE")
    while lab.fetch_clusters():
        assert time.monotonic() < deadline, "a cluster outlived the test by 30 s"
        time.sleep(0.1)  # the server has no events


@pytest.fixture
def use_theme(page: Page) -> Callable[[str], None]:
    """Change between ``"Light"`` and ``"Dark"``."""

    def use(name: str) -> None:
        theme = f"JupyterLab {name}"
        page.evaluate("theme => window.jupyterapp.commands.execute('apputils:change-theme', { theme })", theme)
        page.wait_for_function("theme => document.body.dataset.jpThemeName === theme", arg=theme)
        # the old page stays under a veil until the new style sheets are in
        expect(page.locator("#jupyterlab-splash")).to_have_count(0)

    return use


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """One JupyterLab for the run, with settings, runtime files and notebooks in a folder of its own."""
    with _serve("jupyterlab", "LabApp", tmp_path_factory.mktemp("lab")) as server:
        yield server


@pytest.fixture(scope="session")
def notebook_7(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A Notebook 7, likewise."""
    with _serve("notebook", "JupyterNotebookApp", tmp_path_factory.mktemp("notebook-7")) as server:
        yield server


@contextlib.contextmanager
def _serve(module: str, app: str, home: Path) -> Iterator[Lab]:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    server = Lab(f"http://127.0.0.1:{port}{BASE_URL}", secrets.token_hex(16), home)
    server.root.mkdir()
    _no_news(home / "settings")
    log = home / "server.log"
    command = [
        *(sys.executable, "-m", module, "--no-browser", "--allow-root"),
        *("--ServerApp.ip=127.0.0.1", f"--ServerApp.port={port}", "--ServerApp.port_retries=0"),
        *(f"--IdentityProvider.token={server.token}", f"--ServerApp.root_dir={server.root}"),
        f"--ServerApp.base_url={BASE_URL}",
        f"--{app}.expose_app_in_browser=True",  # window.jupyterapp
    ]
    folders = {
        "HOME": home,
        "IPYTHONDIR": home / "ipython",
        "JUPYTER_CONFIG_DIR": home / "config",
        "JUPYTER_DATA_DIR": home / "data",
        "JUPYTER_RUNTIME_DIR": server.runtime,
        "JUPYTERLAB_SETTINGS_DIR": home / "settings",
        "JUPYTERLAB_WORKSPACES_DIR": home / "workspaces",
    }
    environ = {**os.environ, **{name: str(folder) for name, folder in folders.items()}}
    with (
        log.open("wb") as stream,
        subprocess.Popen(
            command,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            start_new_session=True,
        ) as process,
    ):
        try:
            deadline = time.monotonic() + START_TIMEOUT
            while not server.is_up():
                assert process.poll() is None and time.monotonic() < deadline, log.read_text()[-4000:]
                time.sleep(0.1)  # a server that is not there yet has no event to wait for
            yield server
            server.stop_kernels()
        finally:
            _end(process)


def _no_news(settings: Path) -> None:
    """Keep the question about Jupyter news from covering the page."""
    path = settings / "@jupyterlab" / "apputils-extension" / "notification.jupyterlab-settings"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"fetchNews": "false", "checkForUpdates": False}))


def _end(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)


@pytest.fixture
def workspace(request: pytest.FixtureRequest) -> str:
    """A workspace of this test alone."""
    return re.sub(r"\W+", "-", request.node.name).strip("-")


@pytest.fixture(scope="session")
def browser_type_launch_args(browser_type_launch_args: dict[str, Any]) -> dict[str, Any]:
    """Take the machine's Chromium; without one there is nothing to test."""
    if CHROMIUM is None:
        pytest.skip("there is no Chromium here: install it with apt-get, or name it in SHOAL_CHROMIUM")
    return {**browser_type_launch_args, "executable_path": CHROMIUM, "args": CHROMIUM_ARGS}


@pytest.fixture(scope="session")
def browser_context_args(browser_context_args: dict[str, Any]) -> dict[str, Any]:
    """A laptop's window, at twice the resolution for readable screenshots."""
    return {**browser_context_args, "viewport": {"width": 1280, "height": 800}, "device_scale_factor": 2}


@pytest.fixture
def page_errors(page: Page) -> Iterator[list[str]]:
    """Fail a test whose page raised an error that nobody caught."""
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    yield errors
    assert errors == []


@pytest.fixture(scope="session")
def shots() -> Path:
    """Where the screenshots go."""
    path = Path(__file__).parents[2] / "build" / "screenshots"
    path.mkdir(parents=True, exist_ok=True)
    return path
