"""The wheel in an empty environment, on a machine without Node.js."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(500)

ANSI = re.compile(r"\x1b\[[0-9;]*m")


class Environment:
    """A virtual environment of its own, with a home of its own and nothing of ours on any path."""

    def __init__(self, folder: Path, path: str) -> None:
        self.bin = folder / "venv" / "bin"
        home = folder / "home"
        home.mkdir()
        kept = ("PIP_", "SSL_", "LANG")
        keep = {name: value for name, value in os.environ.items() if name.startswith(kept)}
        self._environ = {
            **keep,
            "PATH": f"{self.bin}{os.pathsep}{path}",
            "HOME": str(home),
            "JUPYTER_PREFER_ENV_PATH": "1",
            "PYTHONWARNINGS": "default",
        }
        self._cwd = home

    def run(self, *command: str, timeout: float = 60.0) -> str:
        """Run a command of the environment; return all that it printed."""
        done = subprocess.run(
            [str(self.bin / command[0]), *command[1:]],
            cwd=self._cwd,
            env=self._environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
        )
        assert done.returncode == 0, f"{command}:\n{done.stdout[-4000:]}"
        return ANSI.sub("", done.stdout)


@pytest.fixture(scope="module")
def environment(distributions, path_without_node, tmp_path_factory):
    folder = tmp_path_factory.mktemp("install")
    subprocess.run([sys.executable, "-m", "venv", str(folder / "venv")], check=True, timeout=120)
    environment = Environment(folder, path_without_node)
    environment.run("pip", "install", "--quiet", "--no-compile", f"{distributions.wheel}[lab]", timeout=400)
    return environment


def test_nothing_is_missing_or_at_odds(environment):
    assert "No broken requirements found" in environment.run("pip", "check")


def test_panel_is_enabled(environment):
    listing = environment.run("jupyter", "labextension", "list")
    assert re.search(r"shoal-labextension v\S+ enabled OK \(python, shoal\)", listing), listing


def test_server_extension_is_enabled_and_loads(environment):
    listing = environment.run("jupyter", "server", "extension", "list")
    assert re.search(r"shoal_labextension enabled\n(.*\n)*?.*shoal_labextension .*OK", listing), listing


def test_load_ext_gives_the_magic(environment):
    script = "%load_ext shoal\nprint('loaded', get_ipython().find_cell_magic('remote') is not None)"
    assert "loaded True" in environment.run("ipython", "--colors=NoColor", "-c", script)


def test_a_cell_runs_on_the_embedded_cluster(environment):
    code = [
        "import shoal",
        "shoal.init()",
        "get_ipython().run_line_magic('load_ext', 'shoal')",
        "get_ipython().run_cell_magic('remote', '', 'import os\\nanswer = 6 * 7\\npid = os.getpid()')",
        "import os",
        "print('answer', answer, 'elsewhere', pid != os.getpid())",
        "shoal.shutdown()",
    ]
    assert "answer 42 elsewhere True" in environment.run("ipython", "--colors=NoColor", "-c", "\n".join(code))
