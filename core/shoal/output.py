"""Output of tasks, under the name users import: ``shoal.output``."""

from shoal.api.output import OutputEvent, publish_display, set_cell_source, set_listener, set_sink
from shoal.model.cells import cell_name
from shoal.model.cells import make_tag as make_cell_tag

__all__ = [
    "OutputEvent",
    "cell_name",
    "make_cell_tag",
    "publish_display",
    "set_cell_source",
    "set_listener",
    "set_sink",
]
