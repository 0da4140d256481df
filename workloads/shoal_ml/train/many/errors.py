"""What can go wrong with many models as a whole."""

from __future__ import annotations

from shoal.errors import ShoalError


class FitError(ShoalError, RuntimeError):
    """No model could be fitted, or more have failed than were allowed.

    Attributes
    ----------
    num_failed
        How many fits have failed.
    store
        Directory of the catalog, which has every failure with its traceback.
    """

    num_failed: int
    store: str


class CatalogError(ShoalError, ValueError):
    """A directory holds no catalog, one of another version, or one that does not fit what is asked of it."""


class MissingModelError(ShoalError, KeyError):
    """There is no model for a key. ``key`` is the key."""

    key: object

    def __str__(self) -> str:
        return str(self.args[0])
