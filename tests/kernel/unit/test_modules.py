"""Which local modules a cell may use, and what is said of them."""

from __future__ import annotations

import ast
import importlib
import os
import pickle
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from shoal_kernel import modules as modules_module
from shoal_kernel.module_files import ModuleFile, Reader, imported_names, user_folders
from shoal_kernel.modules import ModuleSync, ModuleSyntaxError, PreparedModules


class Shell:
    """What is needed of IPython's."""

    def __init__(self) -> None:
        self.user_ns: dict[str, Any] = {}


class Project:
    """A folder of local modules, on the import path, and a notebook that uses them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.shell = Shell()
        self.sync = ModuleSync(self.shell)  # type: ignore[arg-type]

    def write(self, path: str, text: str) -> Path:
        file = self.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return file

    def prepare(self, cell: str) -> PreparedModules:
        return self.sync.prepare(ast.parse(cell), (str(self.folder),))

    def names(self, cell: str) -> list[str]:
        return [module.name for module in self.prepare(cell).synced.modules]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)
    yield Project(tmp_path)
    for name in set(sys.modules) - before:
        del sys.modules[name]


@pytest.mark.parametrize(
    ("code", "package", "names"),
    [
        ("import a.b, c as d", "", {"a", "a.b", "c"}),
        ("from a.b import c, d", "", {"a", "a.b", "a.b.c", "a.b.d"}),
        ("from a import *", "", {"a"}),
        ("from . import x", "p.q", {"p", "p.q", "p.q.x"}),
        ("from ..r import x", "p.q", {"p", "p.r", "p.r.x"}),
        ("from ....r import x", "p.q", set()),
        ("from . import x", "", set()),
        (
            "def f():\n if 1:\n  try: import a\n  except: import b\n  else: import c\n  finally: import d",
            "",
            set("abcd"),
        ),
        ("match 1:\n case 1: import a\nwith x:\n import b\nclass C:\n import c", "", set("abc")),
        ("f = lambda: 1 if 2 else 3", "", set()),
    ],
)
def test_imports_are_found_wherever_they_are(code: str, package: str, names: set[str]) -> None:
    assert set(imported_names(ast.parse(code), package)) == names


def test_what_a_cell_imports_and_what_that_imports(project: Project) -> None:
    project.write("mo_a.py", "import mo_b, os, numpy")
    project.write("mo_b.py", "def f():\n    from mo_pack.net import Net")
    project.write("mo_pack/__init__.py", "")
    project.write("mo_pack/net.py", "from . import layers")
    project.write("mo_pack/layers.py", "")
    project.write("mo_unused.py", "")
    prepared = project.prepare("import mo_a")
    assert {module.name: module.imports for module in prepared.synced.modules} == {
        "mo_a": ("mo_b",),
        "mo_b": ("mo_pack", "mo_pack.net"),
        "mo_pack": (),
        "mo_pack.layers": (),
        "mo_pack.net": ("mo_pack", "mo_pack.layers"),
    }
    assert prepared.sources["0/mo_pack/net.py"] == b"from . import layers"
    assert prepared.said == () and prepared.synced.folders == (str(project.folder),)


def test_what_the_notebook_has_imported_is_known_whatever_the_cell_says(project: Project) -> None:
    project.write("mo_loaded/part.py", "x = 1")  # in a namespace package
    assert project.names("1") == []
    importlib.import_module("mo_loaded.part")
    assert project.names("1") == ["mo_loaded.part"]


def test_a_module_stays_known_while_its_file_is_there(project: Project) -> None:
    file = project.write("mo_stays.py", "")
    assert project.names("import mo_stays") == project.names("1") == ["mo_stays"]
    file.unlink()
    assert project.prepare("1").said == ("mo_stays.py is gone",)
    assert project.prepare("1").said == ()
    project.write("mo_stays.py", "x = 1")
    assert project.names("1") == []
    assert project.prepare("import mo_stays").said == ()


def test_a_line_says_what_has_changed(project: Project) -> None:
    project.write("mo_one.py", "x = 1")
    project.write("mo_pack/two.py", "x = 1")
    cell = "import mo_one, mo_pack.two"
    first = project.prepare(cell)
    assert first.said == () and project.prepare(cell) == first
    project.write("mo_one.py", "x = 2")  # as long as before, and within one tick of a coarse clock
    project.write("mo_pack/two.py", "x = 22")
    second = project.prepare(cell)
    assert second.said == ("synced mo_one.py, mo_pack/two.py",)
    assert second.synced.digest != first.synced.digest
    project.write("mo_one.py", "x = 1")
    project.write("mo_pack/two.py", "x = 1")
    assert project.prepare(cell).synced == first.synced


def test_of_many_changes_some_are_named(project: Project) -> None:
    for number in range(7):
        project.write(f"mo_{number}.py", "")
    cell = "import " + ", ".join(f"mo_{number}" for number in range(7))
    project.prepare(cell)
    for number in range(7):
        project.write(f"mo_{number}.py", "x = 1")
    assert project.prepare(cell).said == ("synced mo_0.py, mo_1.py, mo_2.py, mo_3.py, mo_4.py and 2 more",)


def test_a_file_that_looks_the_same_is_not_read_again(tmp_path: Path) -> None:
    path = tmp_path / "mo_same.py"
    path.write_text("x = 1")
    os.utime(path, (1e9, 1e9))
    reader, file = Reader(), ModuleFile("mo_same", str(tmp_path), "mo_same.py")
    assert reader.read(file) is reader.read(file)
    before = reader.read(file)
    path.write_text("x = 2")
    assert reader.read(file).digest != before.digest


@pytest.mark.parametrize(
    ("cell", "definitions"),
    [
        ("import mo_bad", ""),
        ("import mo_uses_bad", ""),
        ("mo_bad.f()", "import mo_bad"),
        ("f()", "from mo_bad import f"),
        ("x", "from mo_bad import C\nx = C()"),
        ("g()", "import mo_bad\ndef h(): return mo_bad.f()\ndef g(): return h()"),
    ],
)
def test_a_syntax_error_in_a_module_that_the_cell_uses(project: Project, cell: str, definitions: str) -> None:
    project.write("mo_bad.py", "def f(): pass\nclass C: pass\n")
    project.write("mo_uses_bad.py", "import mo_bad")
    exec(definitions, project.shell.user_ns)
    project.prepare(cell)
    project.write("mo_bad.py", "def f(): pass\nclass C: pass\nx = = 1\n")
    with pytest.raises(ModuleSyntaxError) as caught:
        project.prepare(cell)
    error = pickle.loads(pickle.dumps(caught.value))
    assert (error.label, error.line, error.module) == ("mo_bad.py", 3, "mo_bad")
    assert error._render_traceback_()[:2] == ["  mo_bad.py, line 3", "    x = = 1"]
    project.write("mo_bad.py", "x = 1\n")
    assert project.prepare(cell).said == ("synced mo_bad.py",)


def test_a_syntax_error_elsewhere_leaves_what_there_was(project: Project) -> None:
    project.write("mo_wip.py", "x = 1")
    before = project.prepare("import mo_wip")
    project.write("mo_wip.py", "x = = 1")
    after = project.prepare("1")
    assert after.said == ("`mo_wip.py` is not Python (line 1): executors keep what it was before.",)
    assert after.synced == before.synced and after.sources == before.sources
    assert project.prepare("1").said == ()


@pytest.mark.parametrize("text", [b"x = '\0'", b"# coding: nonsense\n", b"\xff = 1", b"(" * 5000])
def test_whatever_is_in_a_file_is_said_and_not_raised(project: Project, text: bytes) -> None:
    (project.folder / "mo_odd.py").write_bytes(text)
    project.write("mo_fine.py", "")
    with pytest.raises(ModuleSyntaxError):
        project.prepare("import mo_odd")
    assert project.names("import mo_fine") == ["mo_fine"]


def test_other_encodings_are_python_too(project: Project) -> None:
    (project.folder / "mo_latin.py").write_bytes("# coding: latin-1\nx = 'é'".encode("latin-1"))
    (project.folder / "mo_mark.py").write_bytes(b"\xef\xbb\xbfx = 1")
    assert project.names("import mo_latin, mo_mark") == ["mo_latin", "mo_mark"]


def test_python_s_own_modules_win_in_executors(project: Project) -> None:
    project.write("antigravity.py", "")
    prepared = project.prepare("import antigravity")
    assert prepared.synced.modules == ()
    (said,) = prepared.said
    assert said.startswith("`antigravity.py` is named like a module of Python's own")
    assert project.prepare("import antigravity").said == ()


def test_what_is_installed_is_not_local_even_inside_the_folder(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A virtual environment beside the notebook, and a module that another folder hides."""
    installed = project.folder / ".venv" / "lib" / "site-packages"
    project.write(".venv/lib/site-packages/mo_installed.py", "")
    monkeypatch.syspath_prepend(str(installed))
    project.write("mo_installed.py", "")
    assert project.names("import mo_installed") == []
    folders = (str(installed), str(project.folder))
    assert project.sync.prepare("import mo_installed", folders).synced.modules == ()


def test_what_executors_run_on_is_left_alone(project: Project) -> None:
    project.write("shoal/extra.py", "")
    project.write("cloudpickle.py", "")
    assert project.names("import shoal.extra, cloudpickle") == []


def test_links_lead_to_modules(project: Project, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "net.py").write_text("x = 1")
    (project.folder / "mo_link.py").symlink_to(elsewhere / "net.py")
    (project.folder / "mo_folder").symlink_to(elsewhere)
    (project.folder / "mo_nowhere.py").symlink_to(elsewhere / "nothing")
    (project.folder / "mo_loop").symlink_to(project.folder / "mo_loop")
    cell = "import mo_link, mo_folder.net, mo_nowhere, mo_loop.x"
    assert project.names(cell) == ["mo_folder.net", "mo_link"]
    (elsewhere / "net.py").write_text("x = 22")
    assert project.prepare(cell).said == ("synced mo_folder/net.py, mo_link.py",)


@pytest.mark.skipif(sys.platform != "linux", reason="needs a file that nobody can read")
def test_an_unreadable_file_is_said(project: Project) -> None:
    (project.folder / "mo_secret.py").symlink_to("/proc/self/mem")
    prepared = project.prepare("import mo_secret")
    assert prepared.synced.modules == ()
    assert prepared.said == ("`mo_secret.py` cannot be read (Input/output error), so executors may not have it.",)


def test_too_much_is_left_out_and_said(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(modules_module, "MAX_NBYTES", 1000)
    project.write("mo_big.py", "#" * 2000)
    project.write("mo_small.py", "")
    prepared = project.prepare("import mo_big, mo_small")
    assert [module.name for module in prepared.synced.modules] == ["mo_small"]
    assert prepared.said[0].startswith("`mo_big.py`, and maybe more, is not kept in step")
    monkeypatch.setattr(modules_module, "MAX_MODULES", 1)
    assert project.names("import mo_small") == ["mo_small"]


def test_the_user_s_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project, prefix = tmp_path / "usr-project", tmp_path / "usr"
    (prefix / "lib").mkdir(parents=True)
    project.mkdir()
    monkeypatch.chdir(project)
    monkeypatch.setattr(sys, "prefix", str(prefix))
    monkeypatch.setattr(sys, "base_prefix", str(prefix))
    monkeypatch.setattr(sys, "path", ["", str(prefix / "lib"), str(project), str(tmp_path / "missing")])
    assert user_folders() == (str(project),)
