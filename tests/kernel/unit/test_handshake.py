"""Which packages are compared, and how differences are told."""

from __future__ import annotations

import json
import math
from collections import OrderedDict
from pathlib import Path

import numpy
import pytest

from shoal_kernel.handshake import MAX_ROWS, MISSING, differences, distributions_of, imported_packages


def test_what_variables_come_from() -> None:
    variables = {
        "np": numpy,
        "loads": json.loads,
        "sqrt": math.sqrt,
        "Ordered": OrderedDict,
        "path": Path(),
        "x": 1,
        "_hidden": pytest,
        "f": test_what_variables_come_from,
    }
    found = imported_packages(variables)
    assert {"numpy", "json", "math", "collections", "pathlib"} <= found
    assert not {"builtins", "pytest", "_pytest"} & found


def test_import_names_are_not_distribution_names() -> None:
    assert distributions_of(["numpy", "yaml", "json", "no_such_package"]) == ["numpy", "PyYAML"]


def test_nothing_is_said_of_equals() -> None:
    assert differences({"numpy": "2.0"}, {"a": {"numpy": "2.0"}, "b": {"numpy": "2.0"}}) is None
    assert differences({"numpy": "2.0"}, {}) is None
    assert differences({}, {"a": {}}) is None


def test_differences_by_version() -> None:
    nodes = {"a": {"numpy": "1.26", "torch": "2.1"}, "b": {"numpy": "1.26", "torch": MISSING}, "c": {"numpy": "2.0"}}
    table = differences({"numpy": "2.0", "torch": "2.1", "attrs": "25"}, nodes)
    assert str(table).splitlines()[:3] == [
        "package  here  nodes",
        "numpy    2.0   1.26 (a, b)",
        "torch    2.1   missing (b)",
    ]


def test_many_nodes_and_many_packages_are_summed_up() -> None:
    here = {f"package-{number}": "1" for number in range(MAX_ROWS + 5)}
    nodes = {f"n{number}": dict.fromkeys(here, "2") for number in range(9)}
    table = differences(here, nodes)
    assert table is not None and len(table.rows) == MAX_ROWS
    assert table.rows[0][2] == "2 (n0, n1, n2 and 6 more)"
    assert table.note.endswith("5 more differ.")
