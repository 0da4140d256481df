"""``%load_ext shoal``: hands over to whatever the entry point group ``shoal.ipython`` names."""

from __future__ import annotations

from typing import Any

GROUP = "shoal.ipython"


def load_ipython_extension(ip: Any) -> None:
    """Called by ``%load_ext shoal``."""
    for extension in _extensions():
        extension.load_ipython_extension(ip)


def unload_ipython_extension(ip: Any) -> None:
    """Called by ``%unload_ext shoal``."""
    for extension in _extensions():
        extension.unload_ipython_extension(ip)


def _extensions() -> list[Any]:
    # Imported here because it takes a third of what `import shoal` may, and few need it.
    from importlib.metadata import entry_points

    return [point.load() for point in entry_points(group=GROUP)]
