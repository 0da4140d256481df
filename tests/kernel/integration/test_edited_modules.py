"""A module that was edited since the last cell is the edited one in the next remote cell."""

from __future__ import annotations

from pathlib import Path
from typing import Any

Kernel = Any


def folder_of(kernel: Kernel) -> Path:
    return Path(kernel.ok("print(os.getcwd())").text().strip())


def test_the_next_cell_has_the_new_code(kernel: Kernel) -> None:
    module = folder_of(kernel) / "edited.py"
    module.write_text("def answer():\n    return 1\n")
    assert kernel.ok("%%remote\nimport edited\nedited.answer()").value == "1"
    module.write_text("def answer():\n    return 'two'\n")
    outcome = kernel.ok("%%remote\nimport edited\nedited.answer()")
    assert outcome.value == "'two'"
    assert outcome.text() == "shoal: synced edited.py\n"
    assert kernel.ok("%%remote\nimport edited\nedited.answer()").text() == ""


def test_an_actor_that_knew_the_old_one_too(kernel: Kernel) -> None:
    module = folder_of(kernel) / "kept.py"
    module.write_text("X = 1\ndef answer():\n    return X\n")
    assert kernel.ok("%%remote --actor keeper\nimport kept\nfrom kept import answer\nanswer()").value == "1"
    module.write_text("X = 22\ndef answer():\n    return X\n")
    assert kernel.ok("%%remote --actor keeper\n(answer(), kept.X)").value == "(22, 22)"


def test_a_module_that_is_not_python(kernel: Kernel) -> None:
    (folder_of(kernel) / "broken.py").write_text("x = 1\ndef f(:\n")
    outcome = kernel.run("%%remote\nimport broken")
    assert "broken.py, line 2" in outcome.error
    assert "nothing was sent" in outcome.error


def test_sync_shows_them(kernel: Kernel) -> None:
    rows = [line.split() for line in kernel.ok("%remote sync").value.splitlines()]
    assert ["edited", "edited.py"] in rows
    assert ["kept", "kept.py"] in rows


def test_it_can_be_turned_off(kernel: Kernel) -> None:
    module = folder_of(kernel) / "alone.py"
    module.write_text("X = 1\n")
    kernel.ok("%config Remote.sync_modules = False")
    try:
        assert kernel.ok("%%remote --actor old\nimport alone\nalone.X").value == "1"
        module.write_text("X = 333\n")
        outcome = kernel.ok("%%remote --actor old\nalone.X")
        assert (outcome.value, outcome.text()) == ("1", "")
    finally:
        kernel.ok("%config Remote.sync_modules = True")
