"""Differences between the driver's versions and the nodes', told before any work."""

from __future__ import annotations

import warnings
from collections.abc import Mapping

from shoal.model.errors import VersionMismatchError


def check_versions(here: Mapping[str, str], nodes: Mapping[str, Mapping[str, str]]) -> None:
    """Compare versions by name; *nodes* maps what to call a node to its versions.

    Raises
    ------
    VersionMismatchError
        A node runs another Python minor version (code cannot travel between those) or has no shoal.

    Warns
    -----
    UserWarning
        Other differences.
    """
    differing = sorted(
        {name for versions in nodes.values() for name in {*here, *versions} if versions.get(name) != here.get(name)}
        - {name for name in here if _same_minor(name, here, nodes)}
    )
    if not differing:
        return
    table = _table(differing, here, nodes)
    if "shoal" in differing and any("shoal" not in versions for versions in nodes.values()):
        raise VersionMismatchError(
            f"shoal is not installed on every node. Install it there and connect again.\n{table}", table=table
        )
    if "python" in differing:
        raise VersionMismatchError(
            "Driver and nodes run different Python versions, and code cannot travel between those. Use the same "
            f"minor version on both sides.\n{table}",
            table=table,
        )
    warnings.warn(f"Driver and nodes differ; results may too.\n{table}", UserWarning, stacklevel=2)


def _same_minor(name: str, here: Mapping[str, str], nodes: Mapping[str, Mapping[str, str]]) -> bool:
    """Whether it is Python, and only the patch level differs."""
    if name != "python":
        return False
    minor = here[name].split(".")[:2]
    return all(versions.get(name, "").split(".")[:2] == minor for versions in nodes.values())


def _table(names: list[str], here: Mapping[str, str], nodes: Mapping[str, Mapping[str, str]]) -> str:
    columns = [["", *names], ["driver", *(here.get(name, "-") for name in names)]]
    columns += [[node, *(versions.get(name, "-") for name in names)] for node, versions in nodes.items()]
    widths = [max(map(len, column)) for column in columns]
    rows = zip(*columns, strict=True)
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
