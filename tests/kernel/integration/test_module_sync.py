"""Local modules that are edited while executors have them: the next cell sees what is on disk."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

Kernel = Any

#: Runs code in an executor as a remote cell is run: prepared here, brought up to date there.
SET_UP = """
from shoal_kernel.modules import ModuleSync
sync = ModuleSync(get_ipython())

def there(synced, refs, folders, code):
    import shoal, sys
    from shoal_kernel import module_sync
    fetched = []
    def fetch():
        fetched.append(1)
        return shoal.get(refs[0])
    dropped = module_sync.apply(synced, fetch)
    namespace = {}
    exec(code, namespace)
    return namespace['value'], sorted(dropped), len(fetched)

def run(code, away=False):
    import dataclasses
    prepared = sync.prepare(code)
    synced = prepared.synced
    if away:  # as it is on a machine without the notebook's folder
        synced = dataclasses.replace(synced, folders=tuple('/nowhere' + folder for folder in synced.folders))
    ref = sync.sources_ref(prepared)
    return *shoal.get(shoal.remote(there).remote(synced, [ref], (), code)), list(prepared.said)
"""


@pytest.fixture(scope="module")
def folder(kernel: Kernel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder on the notebook's path."""
    folder = tmp_path_factory.mktemp("project")
    kernel.ok(f"import sys\nsys.path.insert(0, {str(folder)!r})")
    kernel.ok("%config Remote.sync_modules = False")  # what is tried here is done by hand
    kernel.ok(SET_UP)
    return folder


def test_an_edited_module_is_new_in_the_next_cell(kernel: Kernel, folder: Path) -> None:
    (folder / "in_utils.py").write_text("def f(): return 1\n")
    cell = "from in_utils import f; value = f()"
    assert kernel.ok(f"import in_utils; run({cell!r})").value == "(1, [], 0, [])"
    (folder / "in_utils.py").write_text("def f(): return 2\n")  # Python would not notice: same second, same length
    os.utime(folder / "in_utils.py")
    assert kernel.ok(f"run({cell!r})").value == "(2, ['in_utils'], 0, ['synced in_utils.py'])"
    assert kernel.ok("in_utils.f()").value == "1"
    assert kernel.ok(f"run({cell!r})").value == "(2, [], 0, [])"


def test_every_executor_sees_it(kernel: Kernel, folder: Path) -> None:
    """Ordinary tasks have imported the module everywhere before it is edited."""
    (folder / "in_wide.py").write_text("x = 1")
    kernel.ok(
        """
        import in_wide
        def meet(number):
            import sys, time
            sys.path.insert(0, {folder!r})
            import in_wide, os
            time.sleep(0.05)
            return os.getpid()
        pids = set(shoal.get([shoal.remote(meet).remote(i) for i in range(8)]))
        assert len(pids) > 1
    """.replace("{folder!r}", repr(str(folder)))
    )
    (folder / "in_wide.py").write_text("x = 22")
    kernel.ok("""
        def look(synced):
            import os, time
            from shoal_kernel import module_sync
            module_sync.apply(synced, dict)
            import in_wide
            time.sleep(0.05)
            return os.getpid(), in_wide.x
        synced = sync.prepare('import in_wide').synced
        seen = set(shoal.get([shoal.remote(look).remote(synced) for i in range(8)]))
    """)
    assert kernel.ok("{x for pid, x in seen}, len(seen) > 1").value == "({22}, True)"


def test_where_the_folder_is_not(kernel: Kernel, folder: Path) -> None:
    (folder / "in_pack").mkdir()
    (folder / "in_pack" / "__init__.py").write_text("")
    (folder / "in_pack" / "net.py").write_text("from in_base import x")
    (folder / "in_base.py").write_text("x = 1")
    cell = "import in_pack.net; value = in_pack.net.x, in_pack.net.__file__"
    kernel.ok(f"(x, path), dropped, fetched, said = run({cell!r}, away=True)")
    assert kernel.ok("x, fetched, said").value == "(1, 1, [])"
    path = kernel.ok("path").value.strip("'")
    assert "/modules/" in path and not path.startswith(str(folder))
    (folder / "in_base.py").write_text("x = 22")
    assert kernel.ok(f"(x, path), dropped, fetched, said = run({cell!r}, away=True); x, said").value == (
        "(22, ['synced in_base.py'])"
    )
    kernel.ok("shoal.shutdown()")
    assert not Path(path).exists()
    kernel.ok("shoal.init(num_cpus=2);")
    assert kernel.ok(f"run({cell!r}, away=True)[0][0]").value == "22"


def test_a_syntax_error_is_shown_where_it_is(kernel: Kernel, folder: Path) -> None:
    (folder / "in_broken.py").write_text("x = 1\n")
    kernel.ok("run('import in_broken; value = 1')")
    (folder / "in_broken.py").write_text("x = 1\ny = = 2\n")
    error = kernel.run("run('import in_broken; value = 1')").error
    assert error == "  in_broken.py, line 2\n    y = = 2\n        ^\nSyntaxError: invalid syntax; nothing was sent."
