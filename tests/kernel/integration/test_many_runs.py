"""One cell, several runs: for each value, on each node, as ranks; and values that stay in the cluster."""

from __future__ import annotations

import ast
from typing import Any

import pytest

Kernel = Any


def test_for_each_value(kernel: Kernel) -> None:
    outcome = kernel.ok("base = 10\n")
    outcome = kernel.ok('%%remote --each "lr in [0.1, 0.01]"\nprint("at", lr)\nx = base * lr\nx')
    assert outcome.value == "{0.1: 1.0, 0.01: 0.1}"
    assert sorted(outcome.text().splitlines()) == ["(lr=0.01) at 0.01", "(lr=0.1) at 0.1"]
    assert kernel.run("x").status == "error", "which of them would it be?"


def test_functions_of_the_notebook_as_values(kernel: Kernel) -> None:
    kernel.ok("k = 3\ndef twice(x): return 2 * x * k\ndef thrice(x): return 3 * x * k")
    outcome = kernel.ok('%%remote --each "f in [twice, thrice]" -o found\n(f.__name__, f(1))')
    assert outcome.of_type("execute_result") == []
    assert kernel.ok("sorted(found.values())").value == "[('thrice', 9), ('twice', 6)]"


def test_values_that_cannot_travel_are_named(kernel: Kernel) -> None:
    kernel.ok("import threading\nlocked = [{'a': threading.Lock()}]")
    outcome = kernel.run('%%remote --each "x in locked"\n1')
    assert "`x['a']`: cannot pickle '_thread.lock' object. Nothing was sent." in outcome.text("stderr")


def test_ranks_run_at_the_same_time_and_know_of_each_other(kernel: Kernel) -> None:
    kernel.ok("y = 'before'")
    outcome = kernel.ok(
        "%%remote --ranks 2 --torch\nimport os\nimport torch\nfrom torch import distributed\n"
        "t = torch.tensor([rank + 1.0])\ndistributed.all_reduce(t)\ny = rank\n"
        "(rank, world_size, t.item(), os.environ['RANK'], distributed.get_world_size())"
    )
    assert outcome.value == "[(0, 2, 3.0, '0', 2), (1, 2, 3.0, '1', 2)]"
    assert kernel.ok("y").value == "0", "names come back from rank 0"
    assert kernel.ok("%%remote\nimport os\nos.environ.get('RANK')").of_type("execute_result") == []


def test_ranks_are_numbered_on_each_node_as_well(kernel: Kernel) -> None:
    names = "RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "WORLD_SIZE"
    cell = f"import os\n(shoal.get_runtime_context().node_id, *(int(os.environ[name]) for name in {names}))"
    kernel.ok("%remote scale 2")
    rows = ast.literal_eval(kernel.ok(f"%%remote --ranks 3\n{cell}").value)
    nodes = {node: [row for row in rows if row[0] == node] for node, *_ in rows}
    assert sorted(map(len, nodes.values())) == [1, 2]
    assert [row[1] for row in rows] == [0, 1, 2] and {row[4] for row in rows} == {3}
    for there in nodes.values():
        assert [row[2] for row in there] == list(range(len(there)))
        assert {row[3] for row in there} == {len(there)}
    assert kernel.ok("%%remote\nimport os\n'LOCAL_WORLD_SIZE' in os.environ").value == "False"
    kernel.ok("%remote scale 1")


def test_more_ranks_than_there_is_room_for(kernel: Kernel) -> None:
    outcome = kernel.run("%%remote --ranks 3\nrank")
    assert outcome.status == "error"
    assert "its 3 bundles need num_cpus=3 in all" in outcome.error


def test_when_a_rank_fails_the_others_do_not_wait_for_it(kernel: Kernel) -> None:
    outcome = kernel.run(
        "%%remote --ranks 2 --torch\nfrom torch import distributed\n"
        "if rank == 1: raise ValueError('one is ill')\ndistributed.barrier()"
    )
    assert "ValueError: one is ill" in outcome.error
    assert kernel.ok("%%remote --ranks 2\nrank").value == "[0, 1]", "and all is free again"


def test_everywhere(kernel: Kernel) -> None:
    assert kernel.ok("%%remote --on all\n5").value == "{'127.0.0.1': 5}"
    assert kernel.ok("%%remote --on 0\nz = 6\nz").value == "6"
    assert kernel.ok("%%remote --on host:127.0.0.1\nz + 1").value == "7"


def test_identical_errors_are_shown_once(kernel: Kernel) -> None:
    outcome = kernel.run('%%remote --each "i in range(3)"\nif i: raise ValueError("bad")\ni')
    assert outcome.error.count("ValueError: bad") == 1
    assert "2 of 3: i=1, i=2; 1 succeeded" in outcome.error
    kernel.ok(
        "try:\n    get_ipython().run_cell_magic('remote', '--each \"i in range(3)\"', 'raise KeyError(i)')\n"
        "except* KeyError as errors:\n    caught = len(errors.exceptions)"
    )


def test_a_value_stays_and_is_itself_in_the_next_cell(kernel: Kernel) -> None:
    outcome = kernel.ok("%%remote --keep big\nimport numpy as np\nnp.ones(2_000_000)")
    assert outcome.of_type("execute_result") == []
    assert "left in the cluster" in kernel.ok("big").value
    assert kernel.ok("%%remote\nfloat(big.sum())").value == "2000000.0"
    assert kernel.ok("float(big.fetch()[0])").value == "1.0"
    kernel.ok("del big")


def test_what_stays_keeps_the_names_that_it_reads(kernel: Kernel) -> None:
    kernel.ok("%%remote --keep m\nimport math\nclass M:\n    def go(self): return math.floor(math.pi)\nM()")
    assert kernel.ok("%%remote\nm.go()").value == "3"


def test_a_name_that_stays_does_not_come_as_well(kernel: Kernel) -> None:
    kernel.ok("%%remote --keep w\nw = [1, 2]\nw")
    assert "left in the cluster" in kernel.ok("w").value
    outcome = kernel.run("%%remote --keep w\nw = [3]")
    assert "`--keep` needs a value" in outcome.text("stderr")
    assert kernel.ok("w.fetch()").value == "[1, 2]"


def test_inline_with_a_name(kernel: Kernel) -> None:
    assert kernel.ok("%%remote --inline -o inlined\n40 + 2").of_type("execute_result") == []
    assert kernel.ok("inlined").value == "42"


def test_an_actor_keeps_its_variables(kernel: Kernel) -> None:
    kernel.ok("step = 10")
    assert (
        kernel.ok("%%remote --actor counter\nimport os\ntotal = step\nos.getpid()").value
        != kernel.ok("os.getpid()").value
    )
    assert kernel.ok("%%remote --actor counter\ntotal += step\ntotal").value == "20"
    assert kernel.run("total").status == "error", "it lives there"
    assert kernel.run("%%remote --actor counter\ntotal = 1\n1 / 0").status == "error"
    assert kernel.ok("%%remote --actor counter\ntotal").value == "1"
    assert "`nothing` is not defined" in kernel.run("%%remote --actor counter\ntotal + nothing").error
    assert "counter  CellHost" in kernel.ok("%remote actors").value
    kernel.ok("shoal.kill(shoal.get_actor('counter'))")
    outcome = kernel.run("%%remote --actor counter\ntotal")
    assert "`total` is not defined" in outcome.error, "another one, without the past"


def test_retries(kernel: Kernel, tmp_path: Any) -> None:
    code = f"path = {str(tmp_path / 'tries')!r}\nopen(path, 'a').write('x')\nassert len(open(path).read()) > 2"
    assert kernel.run(f"%%remote\n{code}").status == "error"
    assert kernel.run(f"%%remote --retries 1\n{code}").status == "ok"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("--each", "needs a value"),
        ('--each "x of [1]"', "invalid syntax"),
        ("--ranks 0", "needs 1 or more"),
        ("--ranks two", "`two` is no whole number"),
        ("--on nowhere", "means nothing"),
        ("--on 7", "matches nothing"),
        ("--torch", "process group of `--ranks N`"),
        ('--ranks 2 --each "i in [1]"', "Choose one of `--each` and `--ranks`"),
        ("--on all --ranks 2", "Choose one of `--on` and `--ranks`"),
        ("--keep a -o b", "Choose one"),
        ("--keep 5", "`5` is no name"),
        ("-o class", "`class` is no name"),
        ("--actor a --retries 2", "would stay changed"),
        ("--ranks 2 --retries 2", "would find the others gone"),
        ("--bg --keep a", "would go with the background cell"),
        ("--inline --bg --on all", "`--bg` and `--on` cannot go with it"),
        ("--num-cpus many", "number"),
    ],
)
def test_bad_options_are_one_line(kernel: Kernel, line: str, words: str) -> None:
    outcome = kernel.run(f"%%remote {line}\n1")
    assert outcome.status == "error"
    assert words in outcome.text("stderr")
    assert len(outcome.text("stderr").strip().splitlines()) == 1


def test_large_variables_go_once(kernel: Kernel) -> None:
    kernel.ok("import numpy as np\nlarge = np.ones(500_000)")
    outcome = kernel.ok("%%remote\nfloat(large.sum())")
    assert (
        outcome.text()
        == "shoal: `large` (3.8 MiB) went to the object store; remote cells share it as long as it stays the same.\n"
    )
    assert kernel.ok("%%remote\nfloat(large.sum())").text() == ""
    kernel.ok("large[0] = 3.0")
    outcome = kernel.ok("%%remote\nfloat(large.sum())")
    assert "went to the object store" in outcome.text()
    assert outcome.value == "500002.0"


def test_of_large_lists_only_the_changed_one_goes_again(kernel: Kernel) -> None:
    kernel.ok("words = [f'word {n}' for n in range(200_000)]\ntable = {n: [n] for n in range(200_000)}")
    cell = "%%remote\nlen(words), table[5]"
    first = kernel.ok(cell)
    assert "`words` (" in first.text() and "`table` (" in first.text()
    kernel.ok("table[5] = 'changed'")
    second = kernel.ok(cell)
    assert "`words`" not in second.text() and "`table` (" in second.text()
    assert second.value == "(200000, 'changed')"
    assert kernel.ok(cell).text() == ""


def test_more_than_the_limit_is_refused(kernel: Kernel) -> None:
    kernel.ok("import numpy as np\nlarge = np.ones(500_000)\n%config Remote.max_send = 1e6")
    try:
        outcome = kernel.run("%%remote\nfloat(large.sum())")
        assert "3.8 MiB  large" in outcome.text("stderr")
        outcome = kernel.run('%%remote --each "x in [bytes([n]) * 400_000 for n in range(100)]"\nlen(x)')
        assert "reads at least 1.1 MiB" in outcome.text("stderr") and "x, of all runs" in outcome.text("stderr")
        kernel.ok("import itertools")
        outcome = kernel.run('%%remote --each "i in itertools.count()"\ni')
        assert "it has more than 10,000 values" in outcome.text("stderr")
    finally:
        kernel.ok("%config Remote.max_send = 4e9")
