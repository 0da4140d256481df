"""The variables of a test, for what asks which variables there are."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from shoal.runtime.variables import MainNamespace, Variable, traceback_variables


class Names(MainNamespace):
    """Those given, and the last error's."""

    def __init__(self, **values: object) -> None:
        self.values = values

    def variables(self) -> Iterator[Variable]:
        for name, value in self.values.items():
            yield Variable(f"`{name}`", value)
        error = getattr(sys, "last_exc", None)
        yield from traceback_variables([error.__traceback__] if error else [], self.scopes())
