"""What is in the wheel and the sdist, and what must not be."""

from __future__ import annotations

import json
import re
from email import message_from_bytes
from pathlib import Path

import pytest

from shoal import __version__

ROOT = Path(__file__).parents[2]
SHARED = f"shoal-{__version__}.data/data/share/jupyter/labextensions/shoal-labextension"
CONFIG = f"shoal-{__version__}.data/data/etc/jupyter/jupyter_server_config.d/shoal_labextension.json"

pytestmark = pytest.mark.timeout(500)  # the first test to run waits for the build


def test_wheel_has_the_four_packages_and_nothing_beside_them(distributions):
    tops = {name.split("/")[0] for name in distributions.wheel_names()}
    assert tops == {
        "shoal",
        "shoal_ml",
        "shoal_kernel",
        "shoal_labextension",
        f"shoal-{__version__}.dist-info",
        f"shoal-{__version__}.data",
    }


@pytest.mark.parametrize("package", ["shoal", "shoal_ml", "shoal_kernel", "shoal_labextension"])
def test_packages_say_that_they_are_typed(distributions, package):
    assert f"{package}/py.typed" in distributions.wheel_names()


def test_wheel_has_the_panel_once(distributions):
    names = distributions.wheel_names()
    assert {
        f"{SHARED}/package.json",
        f"{SHARED}/install.json",
        f"{SHARED}/static/style.js",
        f"{SHARED}/schemas/shoal-labextension/clusters.json",
        CONFIG,
    } <= names
    entries = [name for name in names if re.search(r"/remoteEntry\.\w+\.js$", name)]
    assert len(entries) == 1
    assert entries[0].startswith(SHARED)


def test_panel_is_small(distributions):
    scripts = [name for name in distributions.wheel_names() if name.endswith(".js")]
    assert sum(len(distributions.read_from_wheel(name)) for name in scripts) < 150_000


def test_server_config_enables_the_server_extension(distributions):
    config = json.loads(distributions.read_from_wheel(CONFIG))
    assert config["ServerApp"]["jpserver_extensions"] == {"shoal_labextension": True}


def test_metadata_names_version_licence_and_entry_point(distributions):
    info = f"shoal-{__version__}.dist-info"
    metadata = message_from_bytes(distributions.read_from_wheel(f"{info}/METADATA"))
    assert metadata["Version"] == __version__
    assert metadata["License-Expression"] == "BSD-3-Clause"
    extras = {"kernel", "lab", "ml", "onnx", "transformers", "serve", "train", "profile", "dev", "all"}
    assert set(metadata.get_all("Provides-Extra")) == extras
    assert b"BSD 3-Clause" in distributions.read_from_wheel(f"{info}/licenses/LICENSE")
    entry_points = distributions.read_from_wheel(f"{info}/entry_points.txt").decode()
    assert "[shoal.ipython]\nkernel = shoal_kernel" in entry_points


def test_sdist_has_sources_and_bundle_but_no_installed_packages(distributions):
    names = distributions.sdist_names()
    assert {
        "LICENSE",
        "pyproject.toml",
        "labextension/package-lock.json",
        "labextension/hatch_build.py",
        "labextension/src/index.ts",
        "labextension/shoal_labextension/labextension/package.json",
        "labextension/shoal_labextension/labextension/build-inputs.sha256",
    } <= names
    for unwanted in ("node_modules", "__pycache__", ".venv", "tsbuildinfo", "labextension/lib/"):
        assert not [name for name in names if unwanted in name]


def test_versions_of_python_and_javascript_side_agree():
    manifest = json.loads((ROOT / "labextension/package.json").read_text())
    lock = json.loads((ROOT / "labextension/package-lock.json").read_text())
    assert manifest["version"] == lock["version"] == __version__


def test_lock_file_names_no_host():
    lock = json.loads((ROOT / "labextension/package-lock.json").read_text())
    assert not [name for name, package in lock["packages"].items() if "resolved" in package]
    assert "://" not in json.dumps(lock)
    assert all("integrity" in package for name, package in lock["packages"].items() if name)
