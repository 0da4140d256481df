"""Tables as dataframes and as rows."""

from __future__ import annotations

import math
import sys

import pytest

from shoal.api.dataframes import Rows, make_table
from shoal.observe.state_tables import DTYPES, TABLES

EVENTS = {"number": [1, 2], "time": [1_700_000_000.25, math.nan], "kind": ["node", "a\udcff"], "text": ["x", ""]}


@pytest.mark.parametrize("table", TABLES)
def test_an_empty_table_has_its_columns_with_their_types(table: str) -> None:
    pytest.importorskip("pandas")
    frame = make_table(table, {name: [] for name in TABLES[table]})
    assert {name: str(dtype) for name, dtype in frame.dtypes.items()} == {
        name: DTYPES[kind] for name, kind in TABLES[table].items()
    }
    assert frame.attrs["unanswered"] == [] and len(frame) == 0


def test_a_dataframe_has_times_and_says_who_gave_no_answer() -> None:
    pandas = pytest.importorskip("pandas")
    frame = make_table("events", EVENTS, ["exec-1"])
    assert frame.time[0] == pandas.Timestamp("2023-11-14T22:13:20.25Z") and frame.time[1] is pandas.NaT
    assert {name: str(dtype) for name, dtype in frame.dtypes.items()} == {
        name: DTYPES[kind] for name, kind in TABLES["events"].items()
    }
    assert list(frame.kind) == ["node", "a?"], "what is no text has a stand-in"
    assert frame.attrs["unanswered"] == ["exec-1"]


def test_rows_need_no_pandas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    rows = make_table("events", EVENTS, ["exec-1"], as_rows=True)
    assert isinstance(rows, Rows) and rows.unanswered == ["exec-1"]
    assert rows[0] == {"number": 1, "time": 1_700_000_000.25, "kind": "node", "text": "x"}
    assert rows[1]["time"] is None
    with pytest.raises(ImportError, match=r"pip install pandas.*as_rows=True"):
        make_table("events", EVENTS)
