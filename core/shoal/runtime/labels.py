"""The labels of a node: what its administrator says about it, for ``label_selector``."""

from __future__ import annotations

import os

VARIABLE = "SHOAL_LABELS"


def labels_here() -> dict[str, str]:
    """Return the labels in ``SHOAL_LABELS``, which has them as ``key=value,key=value``.

    Raises
    ------
    ValueError
        A part of it is not of that form.
    """
    labels = {}
    for part in os.environ.get(VARIABLE, "").split(","):
        if part.strip():
            key, equals, value = part.partition("=")
            if not equals or not key.strip():
                raise ValueError(f"`{VARIABLE}` must look like `zone=a,disk=ssd`; `{part}` does not.")
            labels[key.strip()] = value.strip()
    return labels
