"""Displays made in an executor: ``display(…)``, matplotlib figures, values that cannot travel.

Imported by executors: IPython's formatters are loaded when something is shown, not before.
"""

from __future__ import annotations

import builtins
import contextlib
import functools
import importlib.abc
import importlib.machinery
import io
import json
import os
import sys
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any

import shoal.output
from shoal.model.display_limits import DisplayLimits, DisplayMeter

_BACKEND = "module://shoal_kernel.figures"
Bundle = tuple[dict[str, Any], dict[str, Any]]


def display(*objects: Any, **options: Any) -> None:
    """Show objects under the cell that runs this code; stands in for IPython's ``display`` in an executor.

    Parameters
    ----------
    *objects
        What to show, each in the richest forms it has.
    **options
        ``raw=True``: the objects are MIME bundles already; ``metadata``: added to each. The rest is for live
        displays and has no effect here.
    """
    for shown in objects:
        data, metadata = (shown, {}) if options.get("raw") else mime_bundle(shown)
        shoal.output.publish_display(data, {**metadata, **(options.get("metadata") or {})})


def mime_bundle(value: Any) -> Bundle:
    """Return the MIME bundle and the metadata that a notebook would show *value* as."""
    data, metadata = _formatter().format(value)
    return {kind: _as_text(part) for kind, part in data.items()}, metadata


def within(limits: DisplayLimits, bundle: Bundle) -> Bundle:
    """Return a bundle that is shown beside what a cell displays; if it is too large, the line that says so."""
    data, metadata = bundle
    passed = json.loads(DisplayMeter(limits).passed(json.dumps({"data": data, "metadata": metadata})))
    return passed["data"], passed["metadata"]


def _as_text(part: Any) -> Any:
    if isinstance(part, bytes):
        import base64

        return base64.b64encode(part).decode("ascii")
    return part


@functools.cache
def _formatter() -> Any:
    from IPython.core.formatters import DisplayFormatter

    formatter = DisplayFormatter()
    formatter.formatters["image/png"].for_type_by_name("matplotlib.figure", "Figure", _figure_as_png)
    return formatter


def _figure_as_png(figure: Any) -> bytes | None:
    if not figure.axes and not figure.lines:
        return None
    stream = io.BytesIO()
    figure.savefig(stream, format="png", bbox_inches="tight", dpi="figure")
    return stream.getvalue()


def flush_figures(value: Any = None) -> None:
    """Show the figures that pyplot has open and close them, as a notebook does; *value* shows itself."""
    pyplot = sys.modules.get("matplotlib.pyplot")
    if pyplot is None:
        return
    for number in pyplot.get_fignums():
        figure = pyplot.figure(number)
        if figure is not value:
            display(figure)
    pyplot.close("all")


@contextlib.contextmanager
def in_executor() -> Iterator[None]:
    """Make ``display``, IPython's own one too, and figures of the code inside go to the cell."""
    before = vars(builtins).get("display")
    vars(builtins)["display"] = display
    _choose_backend()
    replacement = _DisplayReplacement()
    sys.meta_path.insert(0, replacement)
    if _DISPLAY_MODULE in sys.modules:
        replacement.replace(sys.modules[_DISPLAY_MODULE])
    try:
        yield
    finally:
        sys.meta_path.remove(replacement)
        replacement.undo()
        if before is None:
            del vars(builtins)["display"]
        else:
            vars(builtins)["display"] = before


_DISPLAY_MODULE = "IPython.core.display_functions"


def _publish_display_data(data: dict[str, Any], metadata: dict[str, Any] | None = None, **_: Any) -> None:
    shoal.output.publish_display({kind: _as_text(part) for kind, part in data.items()}, metadata or {})


class _DisplayReplacement(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Puts :func:`display` in the place of IPython's when IPython is imported, which may be never.

    IPython's needs a shell to publish through; libraries bind it by name when they are imported.
    """

    def __init__(self) -> None:
        self._loader: importlib.abc.Loader | None = None
        self._originals: dict[str, Any] = {}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != _DISPLAY_MODULE:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None:
            self._loader, spec.loader = spec.loader, self
        return spec

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        assert self._loader is not None
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        assert self._loader is not None
        self._loader.exec_module(module)
        self.replace(module)

    def replace(self, module: ModuleType) -> None:
        """Replace the functions in *module*, and in the one that users import them from."""
        self._originals = {name: getattr(module, name) for name in _REPLACEMENTS}
        self._set(_REPLACEMENTS)

    def undo(self) -> None:
        self._set(self._originals)

    def _set(self, functions: dict[str, Any]) -> None:
        holders = [sys.modules[name] for name in (_DISPLAY_MODULE, "IPython.display") if name in sys.modules]
        for holder in holders:
            for name, function in functions.items():
                setattr(holder, name, function)


_REPLACEMENTS = {"display": display, "publish_display_data": _publish_display_data}


def _choose_backend() -> None:
    """Figures are drawn without a window and shown by :mod:`shoal_kernel.figures`, unless the user has chosen."""
    if os.environ.get("MPLBACKEND", "").startswith("module://matplotlib_inline") or "MPLBACKEND" not in os.environ:
        os.environ["MPLBACKEND"] = _BACKEND
        if "matplotlib" in sys.modules and "matplotlib.pyplot" not in sys.modules:
            sys.modules["matplotlib"].rcParams["backend"] = _BACKEND
