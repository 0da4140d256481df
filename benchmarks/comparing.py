"""What the comparisons share: a process for each system, the line that says what was compared, and numbers as shown."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import select
import subprocess
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

BENCHMARKS = Path(__file__).parent
ROOT = BENCHMARKS.parent
BUILD = ROOT / "build"
#: Seconds that one measurement may take, and a process to end.
PATIENCE, END_PATIENCE = 600.0, 60.0


class System:
    """The process of one system, which does what it is asked to (see ``serve``)."""

    def __init__(
        self,
        python: str,
        script: Path,
        errors: Any,
        *,
        within: Callable[[list[str]], list[str]] = list,
        environment: dict[str, str] | None = None,
    ) -> None:
        """Start it; ``within`` makes of a command one that runs it elsewhere, in a network of its own for instance."""
        modules = os.pathsep.join([str(BENCHMARKS), str(script.parent)])
        self._process = subprocess.Popen(
            within([python, str(script)]),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env={**os.environ, "PYTHONPATH": modules, **(environment or {})},
        )
        try:
            assert self._answer() == {"ready": True}
        except BaseException:
            self.kill()
            raise

    def run(self, row: str, count: int) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"row": row, "count": count}) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(END_PATIENCE)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """End it and whatever it has started."""
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(self._process.pid)
            for one in (process, *process.children(recursive=True)):
                with contextlib.suppress(psutil.NoSuchProcess):
                    one.kill()
        self._process.wait(END_PATIENCE)

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        # There is one line for each request, so none waits in the file's buffer.
        if not select.select([self._process.stdout], [], [], PATIENCE)[0]:
            self.kill()
            raise RuntimeError(f"no answer within {PATIENCE:g} s")
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the system's process has ended; see build/bench-errors.log")
        return dict(json.loads(line))


def header(ray_python: str) -> str:
    """Return the line that says what was compared, and where."""
    commit = _output("git", "rev-parse", "--short", "HEAD") or "unknown"
    if _output("git", "status", "--porcelain", "core"):
        commit += " with changes"
    ray = _output(ray_python, "-c", "import ray; print(ray.__version__)")
    return (
        f"{time.strftime('%Y-%m-%d')}, commit {commit}, {platform.system()}, {os.cpu_count()} CPUs, "
        f"Python {platform.python_version()}, Ray {ray}, Dask {metadata.version('distributed')}; "
        "shoal as it comes (TLS, and local sockets that the kernel vouches for); "
        f"load before the run {os.getloadavg()[0]:.2f}."
    )


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT).stdout.strip()


def number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:,.1f}" if value >= 10 else f"{value:,.2f}"


def write(output: Path | None, command: str, lines: list[str], raw: dict[str, Any]) -> None:
    """Print the text, and write it (.md) and the raw numbers beside it (.json)."""
    text = "\n".join(lines)
    print(text)
    if output is not None:
        output.with_suffix(".md").write_text(f"# `{command}`\n\n{text}\n")
        output.with_suffix(".json").write_text(json.dumps(raw, indent=1) + "\n")
