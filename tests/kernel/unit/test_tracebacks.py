"""Frames that have travelled get their functions back."""

from __future__ import annotations

import linecache
import traceback
from types import TracebackType

import pytest
from tblib import Traceback

from shoal_kernel.tracebacks import complete, trim

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
    made: TracebackType = Traceback.from_dict(Traceback(caught.value.__traceback__).as_dict()).as_traceback()
    return made


def test_frames_know_their_functions(travelled: TracebackType) -> None:
    link = complete(trim(travelled, "<here>"))
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


def test_the_text_stays_the_same(travelled: TracebackType) -> None:
    def lines(tb: TracebackType | None) -> list[tuple[str, int | None, str, str | None]]:
        return [(frame.filename, frame.lineno, frame.name, frame.line) for frame in traceback.extract_tb(tb)]

    assert lines(complete(travelled)) == lines(travelled)


def test_without_source_the_line_has_to_do(travelled: TracebackType) -> None:
    del linecache.cache["<here>"]
    link = complete(trim(travelled, "<here>"))
    assert link is not None and link.tb_next is not None
    assert link.tb_next.tb_frame.f_code.co_firstlineno == link.tb_next.tb_lineno == 10


def test_nothing_is_left_of_another_files_traceback(travelled: TracebackType) -> None:
    assert trim(travelled, "<elsewhere>") is None and complete(None) is None
