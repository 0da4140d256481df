"""What the cluster does and did, as tables: ``shoal.state``. See ``docs/observing.md``."""

from shoal.api.state import *  # noqa: F403
from shoal.api.state import __all__ as __all__
