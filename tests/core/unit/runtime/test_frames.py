"""Frames that have travelled still know their functions."""

from __future__ import annotations

import linecache
import pickle
import traceback
from types import TracebackType

import pytest

from shoal.runtime import frames

SOURCE = """\
# %%remote
class A:
    @staticmethod
    def method(x):
        return [1 / y for y in x]

def outer(x):
    def inner():
        return A.method(x)
    return inner()

outer([0])
"""


@pytest.fixture
def travelled() -> TracebackType:
    linecache.cache["<here>"] = (len(SOURCE), None, SOURCE.splitlines(keepends=True), "<here>")
    with pytest.raises(ZeroDivisionError) as caught:
        exec(compile(SOURCE, "<here>", "exec", dont_inherit=True), {"__name__": "__main__"})
    traceback_ = caught.value.__traceback__
    assert traceback_ is not None
    made = frames.load(pickle.loads(pickle.dumps(frames.dump(traceback_.tb_next))))
    assert made is not None
    return made


def test_frames_know_their_functions(travelled: TracebackType) -> None:
    link: TracebackType | None = travelled
    found = []
    while link is not None:
        code = link.tb_frame.f_code
        found.append((code.co_name, code.co_qualname, code.co_firstlineno, link.tb_lineno, link.tb_frame.f_lineno))
        link = link.tb_next
    assert found[:4] == [
        ("<module>", "<module>", 1, 12, 12),
        ("outer", "outer", 7, 10, 10),
        ("inner", "outer.<locals>.inner", 8, 9, 9),
        ("method", "A.method", 3, 5, 5),
    ]
    assert travelled.tb_frame.f_globals["__name__"] == "__main__"


def test_they_are_listed_with_their_source(travelled: TracebackType) -> None:
    listed = [(frame.filename, frame.lineno, frame.line) for frame in traceback.extract_tb(travelled)][:3]
    assert listed == [
        ("<here>", 12, "outer([0])"),
        ("<here>", 10, "return inner()"),
        ("<here>", 9, "return A.method(x)"),
    ]


def test_no_traceback_stays_none() -> None:
    assert frames.dump(None) == [] and frames.load([]) is None
