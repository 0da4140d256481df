"""Tags of notebook cells: what all work that a cell causes carries along.

A tag is ``name#identity``: the name is how people call the cell (``In[3]``), the identity tells two runs of it apart.
"""

from __future__ import annotations


def make_tag(name: str, identity: str) -> str:
    return f"{name}#{identity}"


def cell_name(tag: str) -> str:
    """Return how people call the cell; a tag that is no more than a name is one."""
    return tag.partition("#")[0]
