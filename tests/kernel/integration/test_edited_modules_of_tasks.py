"""Tasks and actors run the code that a module has when they are submitted, as remote cells do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Kernel = Any


@pytest.fixture(scope="module")
def edit(kernel: Kernel) -> Callable[[str, str], None]:
    """Writes a module beside the notebook."""
    folder = Path(kernel.ok("print(os.getcwd())").text().strip())

    def write(name: str, text: str) -> None:
        (folder / f"{name}.py").write_text(text)

    return write


Edit = Callable[[str, str], None]


def test_a_function_of_a_module(kernel: Kernel, edit: Edit) -> None:
    edit("plain", "def answer():\n    return 1\n")
    kernel.ok("import plain\ntask = shoal.remote(plain.answer)")
    run = "shoal.get([task.remote() for _ in range(8)])"
    assert kernel.ok(run).value == str([1] * 8)
    edit("plain", "def answer():\n    return 22\n")
    outcome = kernel.ok(run)
    assert outcome.value == str([22] * 8)
    assert outcome.text() == "shoal: synced plain.py\n"
    assert kernel.ok(run).text() == ""
    assert kernel.ok("plain.answer()").value == "1", "the notebook's own stays as it was imported"


def test_a_function_of_the_notebook_that_uses_modules(kernel: Kernel, edit: Edit) -> None:
    edit("used", "def f():\n    return 'old'\n")
    edit("inside", "X = 'old'\n")
    kernel.ok(
        "import used\nfrom used import f\ndef through():\n    return f()\n"
        "@shoal.remote\ndef both():\n    import inside\n    return f(), used.f(), through(), inside.X"
    )
    run = "shoal.get(both.remote())"
    assert kernel.ok(run).value == "('old', 'old', 'old', 'old')"
    edit("used", "def f():\n    return 'changed'\n")
    assert kernel.ok(run).value == "('changed', 'changed', 'changed', 'old')"
    edit("inside", "X = 'changed'\n")
    assert kernel.ok(run).value == "('changed', 'changed', 'changed', 'changed')"


def test_a_remote_function_of_a_module_and_an_actor_class(kernel: Kernel, edit: Edit) -> None:
    text = (
        "import shoal\n@shoal.remote\ndef work(x):\n    return helper(x)\ndef helper(x):\n    return {0!r}, x\n"
        "@shoal.remote\nclass Counter:\n    def step(self):\n        return {0!r}\n"
    )
    edit("decorated", text.format("old"))
    kernel.ok("from decorated import Counter, work\nkept = Counter.remote()")
    run = "shoal.get([work.remote(5), work.options(name='w').remote(6), Counter.remote().step.remote()])"
    assert kernel.ok(run).value == "[('old', 5), ('old', 6), 'old']"
    edit("decorated", text.format("changed"))
    assert kernel.ok(run).value == "[('changed', 5), ('changed', 6), 'changed']"
    assert kernel.ok("shoal.get(kept.step.remote())").value == "'old'", "an actor is what it was when it began"


def test_a_new_actor_of_the_notebook(kernel: Kernel, edit: Edit) -> None:
    edit("inner", "def step(n):\n    return n + 1\n")
    kernel.ok(
        "import inner\n@shoal.remote\nclass Walker:\n    def __init__(self):\n        self.n = 0\n"
        "    def step(self):\n        self.n = inner.step(self.n)\n        return self.n"
    )
    run = "walker = Walker.remote()\nshoal.get([walker.step.remote() for _ in range(2)])"
    assert kernel.ok(run).value == "[1, 2]"
    edit("inner", "def step(n):\n    return n + 100\n")
    assert kernel.ok(run).value == "[100, 200]"


def test_back_to_what_it_was(kernel: Kernel, edit: Edit) -> None:
    kernel.ok("@shoal.remote\ndef look():\n    import swings\n    return swings.X")
    for value in (1, 22, 1, 22):
        edit("swings", f"X = {value}\n")
        assert kernel.ok("shoal.get(look.remote())").value == str(value)


def test_with_a_remote_cell_in_between(kernel: Kernel, edit: Edit) -> None:
    edit("shared", "X = 1\n")
    kernel.ok("import shared\n@shoal.remote\ndef seen():\n    return shared.X")
    assert kernel.ok("shoal.get(seen.remote())").value == "1"
    edit("shared", "X = 22\n")
    assert kernel.ok("%%remote\nimport shared\nshared.X").value == "22"
    assert kernel.ok("shoal.get(seen.remote())").value == "22"


@pytest.mark.parametrize("as_ref", [False, True])
def test_where_the_folder_is_not(kernel: Kernel, edit: Edit, as_ref: bool) -> None:
    name = f"away_{as_ref}"
    edit(name, "def where():\n    return __file__\n")
    kernel.ok(
        f"import {name}, dataclasses, pickle\n"
        "from shoal_kernel.module_sync import SyncedCode, pack_sources\nfrom shoal_kernel.modules import ModuleSync\n"
        f"prepared = ModuleSync(get_ipython()).prepare('import {name}')\n"
        "folders = tuple('/nowhere' + folder for folder in prepared.synced.folders)\n"
        "synced = dataclasses.replace(prepared.synced, folders=folders)\n"
        f"sources = shoal.put(dict(prepared.sources)) if {as_ref} else pack_sources(prepared.sources)\n"
        f"code = SyncedCode(synced, 1, sources, pickle.dumps({name}.where))\n"
        "def there(code):\n    return code()\n"
        "path = shoal.get(shoal.remote(there).remote(code))"
    )
    assert "/modules/" in kernel.ok("path").value


def test_a_module_that_is_not_python(kernel: Kernel, edit: Edit) -> None:
    edit("broken_t", "x = 1\ndef f(:\n")
    error = kernel.run("@shoal.remote\ndef bad():\n    import broken_t\nbad.remote()").error
    assert "broken_t.py, line 2" in error and "nothing was sent" in error
    edit("broken_t", "x = 1\n")
    assert kernel.ok("shoal.get(bad.remote())").status == "ok"


def test_it_can_be_turned_off(kernel: Kernel, edit: Edit) -> None:
    edit("still", "X = 1\n")
    kernel.ok("%config Remote.sync_modules = False")
    try:
        kernel.ok("import sys\nsys.modules.pop('still', None)\nimport still")
        kernel.ok(
            "folder = os.getcwd()\n@shoal.remote\ndef frozen():\n    import sys\n"
            "    sys.path[:0] = [folder] * (folder not in sys.path)\n    import still\n    return still.X\n"
        )
        assert kernel.ok("len({shoal.get(frozen.remote()) for _ in range(8)})").value == "1"
        edit("still", "X = 333\n")
        outcome = kernel.ok("shoal.get(frozen.remote())")
        assert (outcome.value, outcome.text()) == ("1", "")
    finally:
        kernel.ok("%config Remote.sync_modules = True")
    assert kernel.ok("shoal.get(frozen.remote())").value == "333"


def test_in_a_session_of_the_notebooks_own_process_modules_stay(kernel: Kernel, edit: Edit) -> None:
    edit("here", "def f():\n    return 1\n")
    kernel.ok("shoal.shutdown()\nshoal.init(inline=True)\nimport here\nmodule = here\ntask = shoal.remote(here.f)")
    assert kernel.ok("shoal.get(task.remote())").value == "1"
    edit("here", "def f():\n    return 2\n")
    assert kernel.ok("shoal.get(task.remote()), sys.modules['here'] is module").value == "(1, True)"
    kernel.ok("shoal.shutdown()\nshoal.init(num_cpus=2);")
    assert kernel.ok("shoal.get(task.remote())").value == "2"


def test_without_the_extension_there_is_no_say(kernel: Kernel) -> None:
    kernel.ok("%unload_ext shoal")
    try:
        assert kernel.ok("from shoal.runtime import session\nsession.get_code_hook() is None").value == "True"
        assert kernel.ok("shoal.get(shoal.remote(lambda: 5).remote())").value == "5"
    finally:
        kernel.ok("%load_ext shoal")
