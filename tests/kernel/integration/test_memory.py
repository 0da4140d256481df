"""``%remote memory``: what the notebook keeps of its own accord is named, and let go when that is asked for."""

from __future__ import annotations

from typing import Any

Kernel = Any

STORE = "import numpy as np\nref = shoal.put(np.ones({}, np.uint8))"


def table(kernel: Kernel, command: str = "%remote memory") -> str:
    (result,) = kernel.ok(command).of_type("execute_result")
    assert 'aria-label="shoal memory"' in result["data"]["text/html"]
    return str(result["data"]["text/plain"])


def line_of(text: str, *parts: str) -> str:
    lines = [line for line in text.splitlines() if all(part in line for part in parts)]
    (line,) = (line for line in lines if not line.startswith("object store"))
    return line


def test_variables_and_cells(kernel: Kernel) -> None:
    outcome = kernel.ok(STORE.format(2_000_000))
    line = line_of(table(kernel), "1.9 MiB")
    assert f"put in In[{outcome.reply['content']['execution_count']}]" in line and "`ref`" in line
    kernel.ok("del ref")
    assert "  `ref`" not in table(kernel)


def test_outputs(kernel: Kernel) -> None:
    kernel.ok(STORE.format(3_000_000))
    outcome = kernel.ok("ref")
    number = outcome.reply["content"]["execution_count"]
    kernel.ok("shoal.get(ref)")
    kernel.ok("del ref")
    text = table(kernel)
    line = line_of(text, "2.9 MiB")
    assert f"`Out[{number}]`" in line and f"`Out[{number + 1}]` (its memory)" in line
    assert "--release" in text
    text = table(kernel, "%remote memory --release")
    assert "`Out[" not in text and "released: 2.9 MiB" in text and "obj-" not in text


def test_tracebacks(kernel: Kernel) -> None:
    kernel.ok("def fails():\n    kept = shoal.put(np.ones(4_000_000, np.uint8))\n    raise ValueError")
    assert kernel.run("fails()").status == "error"
    line = line_of(table(kernel), "3.8 MiB")
    assert "  the traceback of the last error (`kept` in `fails`)  " in line, "and none of the shell's own frames"
    assert "released: 3.8 MiB" in table(kernel, "%remote memory --release")


def test_large_variables_of_remote_cells(kernel: Kernel) -> None:
    kernel.ok("large = np.ones(7_000_000, np.uint8)")
    kernel.ok("%%remote\nlarge[0] == 1")
    assert "  large variables of remote cells  " in line_of(table(kernel), "6.7 MiB")
    assert "released: 6.7 MiB" in table(kernel, "%remote memory --release")
    assert kernel.ok("%%remote\nint(large[0])").value == "1", "it is stored anew"
    kernel.ok("%remote memory --release")


def test_without_the_extension(kernel: Kernel) -> None:
    """``shoal.memory()`` is not the extension's: it knows outputs by itself."""
    kernel.ok("%unload_ext shoal")
    try:
        kernel.ok(STORE.format(6_000_000))
        number = kernel.ok("[ref]").reply["content"]["execution_count"]
        text = table(kernel, "shoal.memory()")
        assert f"  `ref`; `Out[{number}]`  " in line_of(text, "5.7 MiB")
        kernel.ok("del ref")
        assert "released: 5.7 MiB" in table(kernel, "shoal.memory(release=True)")
    finally:
        kernel.ok("%load_ext shoal")


def test_a_cell_that_failed_elsewhere_keeps_no_more_than_its_error(kernel: Kernel) -> None:
    assert kernel.run("%%remote\nbig = np.ones(5_000_000, np.uint8)\nref = shoal.put(big)\n1 / 0").status == "error"
    rows = table(kernel).splitlines()[1:]
    assert not [row for row in rows if "MiB" in row or "put" in row]


def test_bad_input_is_one_line(kernel: Kernel) -> None:
    for line, words in (
        ("%remote memory --relase", "Unknown option `--relase`. Did you mean `--release`?"),
        ("%remote memory --release now", "`%remote memory` takes options only; what is `now`?"),
        ("%remote status --release", "Unknown option `--release`."),
    ):
        assert words in kernel.run(line).text("stderr"), line
    kernel.ok("memory = 2")
    assert kernel.ok("%remote memory + 1").value == "3"
