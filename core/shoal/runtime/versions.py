"""Versions that matter when code travels between processes."""

from __future__ import annotations

import functools
import platform
from collections.abc import Iterable
from importlib import metadata

from shoal._version import __version__

#: Packages compared between the driver and the nodes.
COMPARED = ("cloudpickle", "dask", "distributed", "numpy", "pandas", "torch")


@functools.cache
def versions_here() -> dict[str, str]:
    """Return the versions of this process, by name; what is not installed is left out."""
    return {"python": platform.python_version(), "shoal": __version__, **versions_of(COMPARED)}


def versions_of(packages: Iterable[str]) -> dict[str, str]:
    """Return the versions of packages as they are installed here; what is not is left out."""
    found = {}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
