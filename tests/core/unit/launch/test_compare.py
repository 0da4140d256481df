"""Differences between the driver's versions and the nodes'."""

from __future__ import annotations

import warnings

import pytest

from shoal.errors import VersionMismatchError
from shoal.launch.compare import check_versions

HERE = {"python": "3.11.7", "shoal": "0.1.0", "numpy": "2.4.0"}


@pytest.mark.parametrize(
    "nodes",
    [{}, {"node-1": HERE}, {"node-1": HERE, "node-2": {**HERE, "python": "3.11.9"}}],
    ids=["no nodes", "the same", "another patch level of Python"],
)
def test_what_makes_no_difference_is_not_mentioned(nodes: dict[str, dict[str, str]]) -> None:
    check_versions(HERE, nodes)


@pytest.mark.parametrize("theirs", ["3.12.1", "3.1.1", "4.11.7"])
def test_another_python_is_refused(theirs: str) -> None:
    with pytest.raises(VersionMismatchError, match="different Python versions") as caught:
        check_versions(HERE, {"node-1": {**HERE, "python": theirs}})
    assert caught.value.table.splitlines()[1].split() == ["python", "3.11.7", theirs]


def test_a_node_without_shoal_is_refused() -> None:
    with pytest.raises(VersionMismatchError, match="not installed on every node") as caught:
        check_versions(HERE, {"node-1": HERE, "node-2": {"python": "3.11.7", "numpy": "2.4.0"}})
    assert caught.value.table.splitlines()[1].split() == ["shoal", "0.1.0", "0.1.0", "-"]
    assert caught.value.table in str(caught.value)


def test_a_node_without_python_or_anything_is_refused() -> None:
    with pytest.raises(VersionMismatchError):
        check_versions(HERE, {"node-1": {}})


def test_other_differences_are_a_warning_with_a_table() -> None:
    with pytest.warns(UserWarning, match="results may too") as caught:
        check_versions(HERE, {"node-1": {**HERE, "numpy": "1.26.4", "torch": "2.13.0"}, "node-2": HERE})
    header, *rows = str(caught[0].message).splitlines()[1:]
    assert header.split() == ["driver", "node-1", "node-2"]
    assert [row.split() for row in rows] == [["numpy", "2.4.0", "1.26.4", "2.4.0"], ["torch", "-", "2.13.0", "-"]]
    assert len(caught) == 1


def test_another_shoal_is_a_warning_as_long_as_there_is_one() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        check_versions(HERE, {"node-1": {**HERE, "shoal": "0.2.0"}})
    assert "shoal" in str(caught[0].message)
