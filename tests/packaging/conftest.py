"""One wheel and one sdist for the whole run, built as a user's pip would build them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
#: A first build takes half a minute, most of it for the JavaScript packages; with them in place 10 s.
BUILD_TIMEOUT = 400.0


NODE_TOOLS = ("node", "npm", "npx", "corepack")


@pytest.fixture(scope="session")
def path_without_node(tmp_path_factory: pytest.TempPathFactory) -> str:
    """PATH of this process as it would be if nobody had installed Node.js.

    A folder that holds it besides other programs (often ``/usr/bin``) is replaced by one of links to those.
    """
    folders = []
    for folder in dict.fromkeys(os.environ.get("PATH", os.defpath).split(os.pathsep)):
        if any(Path(folder, tool).exists() for tool in NODE_TOOLS):
            links = tmp_path_factory.mktemp("bin")
            for program in Path(folder).iterdir():
                if program.name not in NODE_TOOLS:
                    links.joinpath(program.name).symlink_to(program)
            folder = str(links)
        folders.append(folder)
    path = os.pathsep.join(folders)
    assert not [tool for tool in NODE_TOOLS if shutil.which(tool, path=path)]
    return path


@dataclass(frozen=True)
class Distributions:
    """The two files that a release consists of, and what is in them."""

    wheel: Path
    sdist: Path

    def wheel_names(self) -> set[str]:
        """Names of the files in the wheel."""
        with zipfile.ZipFile(self.wheel) as archive:
            return set(archive.namelist())

    def read_from_wheel(self, name: str) -> bytes:
        """Content of one file of the wheel."""
        with zipfile.ZipFile(self.wheel) as archive:
            return archive.read(name)

    def sdist_names(self) -> set[str]:
        """Names of the files in the sdist, without the top folder that all of them are in."""
        with tarfile.open(self.sdist) as archive:
            return {name.partition("/")[2] for name in archive.getnames() if not name.endswith("/")}


@pytest.fixture(scope="session")
def distributions(tmp_path_factory: pytest.TempPathFactory, path_without_node: str) -> Distributions:
    """The sdist of the checkout, and the wheel made from that sdist: a bundle forgotten there shows."""
    out = tmp_path_factory.mktemp("dist")
    log = out / "build.log"
    with log.open("wb") as stream:
        built = subprocess.run(
            [sys.executable, "-m", "build", "--outdir", str(out), str(ROOT)],
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PATH": path_without_node},
            timeout=BUILD_TIMEOUT,
        )
    if built.returncode:
        pytest.fail(f"`python -m build` failed:\n{log.read_text()[-4000:]}", pytrace=False)
    [wheel], [sdist] = out.glob("*.whl"), out.glob("*.tar.gz")
    return Distributions(wheel, sdist)
