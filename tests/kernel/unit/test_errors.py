"""Errors about cells survive pickling and show their place."""

from __future__ import annotations

import pickle

import pytest

from shoal_kernel.errors import CellError, CellSyntaxError, UndefinedNameError, UnsendableVariableError
from shoal_kernel.modules import ModuleSyntaxError
from shoal_kernel.running import CellTimeoutError


@pytest.mark.parametrize(
    "kind", [CellError, CellSyntaxError, ModuleSyntaxError, UndefinedNameError, UnsendableVariableError]
)
def test_cell_errors(kind: type[CellError]) -> None:
    error = kind("it is wrong", label="Cell In[3]", line=4, column=6, text="    x = y\n")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind and vars(again) == vars(error) and str(again) == "it is wrong"
    place = ["  Cell In[3], line 4", "    x = y", "      ^"]
    assert again._render_traceback_() == [*place, f"{again.shown_name}: it is wrong"]


def test_timeout_error() -> None:
    again = pickle.loads(pickle.dumps(CellTimeoutError("too slow", timeout=2.0)))
    assert isinstance(again, TimeoutError) and again.timeout == 2.0
