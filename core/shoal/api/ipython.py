"""The door to the kernel extension: whatever package the entry point group ``shoal.ipython`` names."""

from __future__ import annotations

import logging
import sys
from typing import Any

logger = logging.getLogger("shoal")

GROUP = "shoal.ipython"


def load_ipython_extension(ip: Any) -> None:
    """Called by ``%load_ext shoal``."""
    for extension in _extensions():
        extension.load_ipython_extension(ip)


def unload_ipython_extension(ip: Any) -> None:
    """Called by ``%unload_ext shoal``."""
    for extension in _extensions():
        extension.unload_ipython_extension(ip)


def live_view(what: Any) -> dict[str, Any]:
    """Return the MIME bundle of a view of *what* that stays up to date; empty where there can be none.

    Where there is a notebook's kernel, the extension says what it has.
    """
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    if getattr(shell, "kernel", None) is None:
        return {}
    bundle: dict[str, Any] = {}
    try:
        for extension in _extensions():
            bundle |= extension.live_view(what)
    except Exception:  # boundary: whatever is wrong with widgets here, the rest of what is shown is there
        logger.warning("there is no live view", exc_info=True)
    return bundle


def draw(picture: str, **options: Any) -> Any:
    """Return the picture that the extension draws.

    Raises
    ------
    ModuleNotFoundError
        There is no extension that could.
    """
    extensions = _extensions()
    if not extensions:
        raise ModuleNotFoundError("Pictures are drawn by shoal's kernel extension: `pip install 'shoal[kernel]'`.")
    return extensions[0].draw(picture, **options)


def _extensions() -> list[Any]:
    # Imported here because it takes a third of what `import shoal` may, and few need it.
    from importlib.metadata import entry_points

    return [point.load() for point in entry_points(group=GROUP)]
