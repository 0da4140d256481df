"""For those who show notebooks: which variables there are, as :func:`shoal.memory` names them."""

from shoal.runtime.holders import (
    MainNamespace,
    Namespace,
    Variable,
    forget_last_errors,
    last_errors,
    set_namespace,
    traceback_variables,
)

__all__ = [
    "MainNamespace",
    "Namespace",
    "Variable",
    "forget_last_errors",
    "last_errors",
    "set_namespace",
    "traceback_variables",
]
