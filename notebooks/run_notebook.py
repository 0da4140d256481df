"""Run a notebook from top to bottom without a browser and print what its cells give.

    python notebooks/run_notebook.py notebooks/quickstart.ipynb

The cells run in a real kernel, as JupyterLab would run them. Exits with 0 when every cell ran, with 1 when a
cell raised (its traceback is shown) or took too long.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import sys
import tempfile
import textwrap
import time
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from traitlets.config import Config

ANSI = re.compile(r"\x1b\[[0-9;]*m")
WIDGET = "application/vnd.jupyter.widget-view+json"


class Printer:
    """Prints headings as they are reached, and each cell with its outputs when it has run."""

    def __init__(self, *, colour: bool) -> None:
        self._colour = colour
        self._started = time.monotonic()

    def on_cell_start(self, cell: Any, cell_index: int) -> None:
        """Print the headings of a markdown cell; note the time when a code cell begins."""
        self._started = time.monotonic()
        if cell.cell_type == "markdown":
            for line in cell.source.splitlines():
                if line.startswith("#"):
                    title = line.lstrip("# ")
                    print(f"\n{self._bold(title)}\n{'=' * len(title)}", flush=True)

    def on_cell_executed(self, cell: Any, cell_index: int, execute_reply: Any) -> None:
        """Print a code cell and what came of it."""
        seconds = time.monotonic() - self._started
        print(f"\n{self._dim(f'[{cell.execution_count}] {seconds:.1f} s')}")
        print(textwrap.indent(cell.source, "    | ", lambda line: True))
        for output in cell.outputs:
            text = describe(output)
            if text:
                print(text if self._colour else ANSI.sub("", text))
        sys.stdout.flush()

    def _bold(self, text: str) -> str:
        return f"\x1b[1m{text}\x1b[0m" if self._colour else text

    def _dim(self, text: str) -> str:
        return f"\x1b[2m{text}\x1b[0m" if self._colour else text


def describe(output: Any) -> str:
    """Give the text of one output; pictures and widgets, which a terminal cannot show, are named."""
    kind = output.output_type
    if kind == "stream":
        return str(output.text).rstrip("\n")
    if kind == "error":
        return "\n".join(output.traceback)
    data = output.data
    if WIDGET in data:
        return "(a widget)"
    pictures = [mime for mime in data if mime.startswith("image/")]
    if pictures:
        return f"(a picture: {pictures[0]})"
    return str(data.get("text/plain", f"({', '.join(data)})"))


def run(path: Path, *, timeout: float, output: Path | None) -> int:
    """Run one notebook; return the exit status."""
    with tempfile.TemporaryDirectory(prefix="shoal-demo-") as sockets:
        return run_with(path, sockets, timeout=timeout, output=output)


def run_with(path: Path, sockets: str, *, timeout: float, output: Path | None) -> int:
    """As :func:`run`; the kernel's socket files are made in the directory *sockets*."""
    notebook = nbformat.read(path, as_version=4)
    printer = Printer(colour=sys.stdout.isatty())
    client = NotebookClient(
        notebook,
        timeout=timeout,
        # the kernel is reached through socket files that only this user can open, instead of TCP ports
        config=Config(KernelManager={"transport": "ipc", "ip": os.path.join(sockets, "kernel")}),
        resources={"metadata": {"path": str(path.parent)}},
        on_cell_start=printer.on_cell_start,
        on_cell_executed=printer.on_cell_executed,
    )
    started = time.monotonic()
    try:
        client.execute()
    except CellExecutionError:
        # the printer has shown the cell and its traceback
        print(f"\n{path.name}: a cell failed", file=sys.stderr)
        return 1
    except CellTimeoutError:
        print(f"\n{path.name}: a cell took longer than {timeout:g} s", file=sys.stderr)
        return 1
    except DeadKernelError:
        print(f"\n{path.name}: the kernel died", file=sys.stderr)
        return 1
    finally:
        if output is not None:
            nbformat.write(notebook, output)
    width = min(shutil.get_terminal_size().columns, 110)
    print("\n" + "-" * width)
    print(f"{path.name}: every cell ran, {time.monotonic() - started:.1f} s in all")
    return 0


def main() -> int:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description="Run a notebook and print what its cells give.")
    parser.add_argument("notebook", type=Path)
    parser.add_argument("--timeout", type=float, default=300.0, help="seconds that one cell may take (300)")
    parser.add_argument("--output", type=Path, help="also save the notebook with its outputs here")
    options = parser.parse_args()
    if not options.notebook.is_file():
        parser.error(f"no such notebook: {options.notebook}")
    return run(options.notebook, timeout=options.timeout, output=options.output)


if __name__ == "__main__":
    sys.exit(main())
