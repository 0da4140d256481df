"""A value that stayed in the cluster: what ``--keep`` leaves in the notebook."""

from __future__ import annotations

from typing import Any

import shoal


class RemoteValue:
    """Stands in the notebook for a value in the cluster; in remote cells its name means the value itself.

    Attributes
    ----------
    ref
        Of the value, for ``shoal.get``, and for tasks and actors.
    made_in
        The cell that made it: ``In[3]``.
    """

    def __init__(self, ref: shoal.ObjectRef, made_in: str) -> None:
        self.ref = ref
        self.made_in = made_in

    def fetch(self, timeout: float | None = None) -> Any:
        """Return the value; large arrays and tensors are mapped, not copied, where it is on this machine."""
        return shoal.get(self.ref, timeout=timeout)

    def __reduce__(self) -> tuple[Any, ...]:
        return RemoteValue, (self.ref, self.made_in)

    def __repr__(self) -> str:
        return f"<a value that {self.made_in} left in the cluster: {self.ref!r}; `.fetch()` brings it here>"
