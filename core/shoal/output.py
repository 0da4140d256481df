"""Output of tasks, under the name users import: ``shoal.output``."""

from shoal.api.output import OutputEvent, publish_display, set_cell_source, set_sink

__all__ = ["OutputEvent", "publish_display", "set_cell_source", "set_sink"]
