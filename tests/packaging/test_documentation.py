"""The documentation is true: its Python blocks run, in order, and its links lead somewhere.

A page is run as a reader would try it: its blocks one after another in one fresh process, against an embedded cluster,
with ``%magic`` where a notebook is meant. What a page takes for granted (a ref, a cluster's name) is in an HTML comment
before the block: ``<!-- given: ref = … -->`` is run first; ``<!-- not run: why -->`` leaves the block alone.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("benchmarks/**/*.md")])
_FENCE = re.compile(
    r"(?:^<!-- (?P<mark>given|not run):\s(?P<text>.*?)\s-->\n+)?^```(?P<language>\w*)\n(?P<code>.*?)^```$", re.M | re.S
)
_COLOUR = re.compile(r"\x1b\[[\d;]*m")
_LINK = re.compile(r"\]\(([^)\s]+)\)")
#: Runs the cells that are read from stdin, as a notebook would, and ends with the first that fails.
_RUNNER = """
import json, sys
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
for line, source in json.load(sys.stdin):
    outcome = shell.run_cell(source, store_history=True)
    if not outcome.success:
        sys.exit(f"the block at line {line} failed")
"""


class Block(NamedTuple):
    """A fenced block of a page: the line where it begins, its language and its mark."""

    line: int
    language: str
    code: str
    mark: str
    text: str


def blocks_of(page: Path) -> list[Block]:
    text = page.read_text()
    return [
        Block(
            text.count("\n", 0, found.start("code")) + 1,
            found["language"],
            found["code"],
            found["mark"] or "",
            found["text"] or "",
        )
        for found in _FENCE.finditer(text)
    ]


def cells_of(page: Path) -> list[tuple[int, str]]:
    """Return what is to be run of a page, each with its line."""
    cells = []
    for block in blocks_of(page):
        if block.language == "python" and block.mark != "not run":
            if block.mark == "given":
                cells.append((block.line, block.text))
            cells.append((block.line, block.code))
    return cells


PAGES_WITH_CODE = [page for page in PAGES if cells_of(page)]


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def test_there_is_something_to_run() -> None:
    assert {"README.md", "docs/notebook.md", "docs/metrics.md", "docs/observing.md"} <= set(
        map(name_of, PAGES_WITH_CODE)
    )


@pytest.mark.parametrize("page", PAGES_WITH_CODE, ids=name_of)
def test_the_code_of_a_page_runs(page: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _RUNNER],
        input=json.dumps(cells_of(page)),
        cwd=tmp_path,
        env={**os.environ, "IPYTHONDIR": str(tmp_path / "ipython"), "JUPYTER_DATA_DIR": str(tmp_path / "data")},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, f"{name_of(page)}: {done.stderr[-1000:]}\n{_COLOUR.sub('', done.stdout)[-3000:]}"


def anchors_of(page: Path) -> set[str]:
    """Return what may come after a page's `#`: its headings as GitHub turns them into names."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.M | re.S)
    headings = re.findall(r"^#+ (.*)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_the_links_of_a_page_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```$|`[^`]*`", "", page.read_text(), flags=re.M | re.S)
    broken = []
    for target in _LINK.findall(text):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = unquote(target).partition("#")
        there = (page.parent / path) if path else page
        if not there.exists() or (anchor and anchor not in anchors_of(there)):
            broken.append(target)
    assert not broken
