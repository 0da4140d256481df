"""The JupyterLab side of shoal: the server extension that feeds the panel, and the panel's files."""

from shoal_labextension.extension import (
    _jupyter_labextension_paths,
    _jupyter_server_extension_points,
    _load_jupyter_server_extension,
)

__all__ = [
    "_jupyter_labextension_paths",
    "_jupyter_server_extension_points",
    "_load_jupyter_server_extension",
]
