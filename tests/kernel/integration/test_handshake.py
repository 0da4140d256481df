"""Packages of the notebook that the nodes do not have, or have otherwise, are told under the cell that asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

Kernel = Any

CHECK = "handshake.check(get_ipython().user_ns)"
JOIN = "import threading\n[t.join() for t in threading.enumerate() if t.name == 'shoal-handshake'];"


def install(folder: Path, name: str, version: str) -> None:
    """Make a package that only the notebook has: it is put on its path after the cluster has started."""
    information = folder / f"{name}-{version}.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (information / "top_level.txt").write_text(f"{name}\n")
    (folder / f"{name}.py").write_text("x = 1\n")


def shown(kernel: Kernel, msg_id: str) -> list[dict[str, str]]:
    messages = kernel.of(msg_id)
    found = [message["content"]["data"] for message in messages if message["msg_type"] == "display_data"]
    return [data for data in found if "packages that this notebook uses" in data["text/plain"]]


def test_handshake(kernel: Kernel, tmp_path: Path) -> None:
    kernel.ok("from shoal_kernel.handshake import Handshake\nhandshake = Handshake(get_ipython())")
    kernel.ok("import numpy, json")
    same = kernel.ok(CHECK)
    kernel.ok(JOIN)
    assert shown(kernel, same.msg_id) == []

    install(tmp_path, "only_here", "1.5")
    kernel.ok(f"import sys\nsys.path.append({str(tmp_path)!r})\nimport only_here")
    asked = kernel.ok(CHECK)
    kernel.ok(JOIN)
    kernel.wait_for(lambda messages: bool(shown(kernel, asked.msg_id)), asked.msg_id)
    (data,) = shown(kernel, asked.msg_id)
    heads, row, note = data["text/plain"].splitlines()
    assert heads.split() == ["package", "here", "nodes"]
    assert row.startswith("only_here  1.5   missing (") and note.startswith("shoal: packages")
    assert "<table>" in data["text/html"]

    again = kernel.ok(CHECK)
    kernel.ok(JOIN)
    assert shown(kernel, again.msg_id) == []


def test_without_a_cluster_nothing_happens(kernel: Kernel) -> None:
    kernel.ok("shoal.shutdown()")
    try:
        kernel.ok(f"from shoal_kernel.handshake import Handshake\nhandshake = Handshake(get_ipython())\n{CHECK}")
        assert kernel.ok("shoal.is_initialized()").value == "False"
    finally:
        kernel.ok("shoal.init(num_cpus=2);")
