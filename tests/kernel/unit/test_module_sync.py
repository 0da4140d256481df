"""Local modules in an executor: forgotten when they are of an older version, fetched where the files are not."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from shoal_kernel.module_sync import Module, ModuleKeeper, SyncedModules, digest_of, rebind, with_packages


@pytest.fixture(autouse=True)
def _clean_imports(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Modules imported by a test are forgotten after it."""
    before = set(sys.modules)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


def write(folder: Path, **texts: str) -> None:
    """Write modules; ``__`` in a name stands for a dot."""
    for name, text in texts.items():
        path = folder / (name.replace("__", "/") + ".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def describe(folder: Path, imports: Mapping[str, tuple[str, ...]] | None = None) -> SyncedModules:
    """Return what the notebook would say of the modules in *folder* now."""
    modules = []
    for path in sorted(folder.rglob("*.py")):
        relative = path.relative_to(folder).as_posix()
        name = relative.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        modules.append(Module(name, 0, relative, digest_of(path.read_bytes()), (imports or {}).get(name, ())))
    return SyncedModules((str(folder),), tuple(modules), digest_of(repr(modules).encode()))


def sources_of(folder: Path) -> dict[str, bytes]:
    return {f"0/{path.relative_to(folder).as_posix()}": path.read_bytes() for path in folder.rglob("*.py")}


def no_fetch() -> Mapping[str, bytes]:
    raise AssertionError("the folder is here: nothing is to be fetched")


def value_of(name: str) -> object:
    return importlib.import_module(name).value


def test_an_edited_module_is_imported_anew(tmp_path: Path) -> None:
    keeper = ModuleKeeper()
    write(tmp_path, sy_one="value = 1")
    keeper.apply(describe(tmp_path), no_fetch)
    assert value_of("sy_one") == 1
    # Of equal length and within one second: Python itself would take the bytecode for that of the present text.
    write(tmp_path, sy_one="value = 2")
    os.utime(tmp_path / "sy_one.py")
    assert keeper.apply(describe(tmp_path), no_fetch) == {"sy_one"}
    assert value_of("sy_one") == 2


def test_an_unchanged_module_keeps_its_state(tmp_path: Path) -> None:
    keeper = ModuleKeeper()
    write(tmp_path, sy_state="value = []", sy_other="value = 1")
    keeper.apply(describe(tmp_path), no_fetch)
    state = value_of("sy_state")
    write(tmp_path, sy_other="value = 22")
    keeper.apply(describe(tmp_path), no_fetch)
    assert value_of("sy_state") is state


def test_a_cell_that_asks_for_nothing_changes_nothing(tmp_path: Path) -> None:
    keeper = ModuleKeeper()
    write(tmp_path, sy_kept="value = []")
    keeper.apply(describe(tmp_path), no_fetch)
    state = value_of("sy_kept")
    assert keeper.apply(SyncedModules(), no_fetch) == keeper.apply(describe(tmp_path), no_fetch) == frozenset()
    assert value_of("sy_kept") is state


def test_modules_that_hold_functions_of_an_edited_one_go_with_it(tmp_path: Path) -> None:
    keeper = ModuleKeeper()
    write(tmp_path, sy_base="value = 1", sy_middle="from sy_base import value", sy_top="from sy_middle import value")
    imports = {"sy_middle": ("sy_base",), "sy_top": ("sy_middle",)}
    keeper.apply(describe(tmp_path, imports), no_fetch)
    assert value_of("sy_top") == 1
    write(tmp_path, sy_base="value = 22")
    assert keeper.apply(describe(tmp_path, imports), no_fetch) == {"sy_base", "sy_middle", "sy_top"}
    assert value_of("sy_top") == 22


def test_an_edited_part_leaves_its_package_and_is_found_there_again(tmp_path: Path) -> None:
    keeper = ModuleKeeper()
    write(tmp_path, sy_pack__net="value = 1")
    (tmp_path / "sy_pack" / "__init__.py").write_text("value = []")
    keeper.apply(describe(tmp_path), no_fetch)
    assert value_of("sy_pack.net") == 1
    package = sys.modules["sy_pack"]
    write(tmp_path, sy_pack__net="value = 22")
    assert keeper.apply(describe(tmp_path), no_fetch) == {"sy_pack.net"}
    assert not hasattr(package, "net")
    assert value_of("sy_pack.net") == 22
    assert sys.modules["sy_pack"] is package and package.net.value == 22


def test_an_edited_package_takes_its_parts_with_it(tmp_path: Path) -> None:
    keeper = ModuleKeeper()
    write(tmp_path, sy_whole__net="value = 1")
    (tmp_path / "sy_whole" / "__init__.py").write_text("size = 1")
    keeper.apply(describe(tmp_path), no_fetch)
    assert value_of("sy_whole.net") == 1
    (tmp_path / "sy_whole" / "__init__.py").write_text("size = 22")
    assert keeper.apply(describe(tmp_path), no_fetch) == {"sy_whole", "sy_whole.net"}
    assert value_of("sy_whole.net") == 1 and sys.modules["sy_whole"].net.value == 1


def test_what_was_imported_before_anything_was_known_counts_as_old(tmp_path: Path) -> None:
    write(tmp_path, sy_early="value = 1")
    sys.path.append(str(tmp_path))
    assert value_of("sy_early") == 1
    write(tmp_path, sy_early="value = 22")
    assert ModuleKeeper().apply(describe(tmp_path), no_fetch) == {"sy_early"}
    assert value_of("sy_early") == 22


def test_a_deleted_module_can_no_longer_be_imported(tmp_path: Path) -> None:
    keeper = ModuleKeeper()
    write(tmp_path, sy_gone="value = 1", sy_left="value = 1")
    keeper.apply(describe(tmp_path), no_fetch)
    assert value_of("sy_gone") == 1
    (tmp_path / "sy_gone.py").unlink()
    assert keeper.apply(describe(tmp_path), no_fetch) == {"sy_gone"}
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("sy_gone")


def test_parts_of_namespace_packages_are_modules_too(tmp_path: Path) -> None:
    keeper = ModuleKeeper()
    write(tmp_path, sy_space__deep__net="value = 1")
    keeper.apply(describe(tmp_path), no_fetch)
    assert value_of("sy_space.deep.net") == 1
    write(tmp_path, sy_space__deep__net="value = 22")
    keeper.apply(describe(tmp_path), no_fetch)
    assert value_of("sy_space.deep.net") == 22


def test_where_the_folder_is_not_the_texts_are_fetched_once_for_each_state(tmp_path: Path) -> None:
    here, away = tmp_path / "here", tmp_path / "away"
    write(here, sy_far__net="value = 1", sy_main="from sy_far.net import value")
    keeper, fetched = ModuleKeeper(), []

    def fetch() -> Mapping[str, bytes]:
        fetched.append(1)
        return sources_of(here)

    def seen_from_away() -> SyncedModules:
        described = describe(here, {"sy_main": ("sy_far.net",)})
        return SyncedModules((str(away),), described.modules, described.digest)

    for _ in range(2):
        keeper.apply(seen_from_away(), fetch)
        assert value_of("sy_main") == 1
    assert len(fetched) == 1
    write(here, sy_far__net="value = 22")
    keeper.apply(seen_from_away(), fetch)
    assert value_of("sy_main") == 22 and len(fetched) == 2
    (entry,) = [entry for entry in sys.path if "-modules-" in entry]
    assert os.stat(Path(entry).parents[1]).st_mode & 0o077 == 0


def test_other_texts_under_the_same_path_are_not_used(tmp_path: Path) -> None:
    """The same folder may be there on another machine, with a version of its own."""
    write(tmp_path, sy_differs="value = 1")
    described, sources = describe(tmp_path), sources_of(tmp_path)
    write(tmp_path, sy_differs="value = 22")
    sys.path.insert(0, str(tmp_path))
    ModuleKeeper().apply(described, lambda: sources)
    assert value_of("sy_differs") == 1


def test_a_failed_fetch_is_tried_again(tmp_path: Path) -> None:
    write(tmp_path, sy_again="value = 1")
    described = describe(tmp_path)
    away = SyncedModules((str(tmp_path / "away"),), described.modules, described.digest)
    keeper = ModuleKeeper()

    def fail() -> Mapping[str, bytes]:
        raise ConnectionError("gone")

    with pytest.raises(ConnectionError):
        keeper.apply(away, fail)
    keeper.apply(away, lambda: sources_of(tmp_path))
    assert value_of("sy_again") == 1


def test_names_that_outlive_a_cell_are_bound_anew(tmp_path: Path) -> None:
    keeper = ModuleKeeper()
    write(tmp_path, sy_names="def f(): return 1\nclass C: number = 1\nclass Removed: pass")
    keeper.apply(describe(tmp_path), no_fetch)
    module = importlib.import_module("sy_names")
    namespace = {"m": module, "f": module.f, "C": module.C, "Removed": module.Removed, "x": module.C(), "os": os}
    before = dict(namespace)
    write(tmp_path, sy_names="def f(): return 22\nclass C: number = 22")
    rebind(namespace, keeper.apply(describe(tmp_path), no_fetch))
    assert namespace["f"]() == namespace["C"].number == namespace["m"].f() == 22
    assert all(namespace[name] is before[name] for name in ("Removed", "x", "os"))


def test_folders_come_before_what_is_installed(tmp_path: Path) -> None:
    write(tmp_path, sy_first="value = 1")
    sys.path[:] = ["/python/lib", "/python/lib/site-packages", "/last"]
    ModuleKeeper().apply(describe(tmp_path), no_fetch)
    assert sys.path == ["/python/lib", str(tmp_path), "/python/lib/site-packages", "/last"]


def test_packages_of_a_name() -> None:
    assert with_packages("a.b.c") == ["a", "a.b", "a.b.c"]
