"""Small values that the controller keeps."""

from __future__ import annotations

import pytest

from shoal.machines import kept


def test_values_are_kept_replaced_and_forgotten():
    values = kept.KeptValues()
    assert values.find("a") == b""
    assert values.keep("a", b"one") == "" and values.keep("a", b"two") == ""
    assert values.find("a") == b"two"
    values.keep("a", b"")
    assert values.find("a") == b""


def test_what_is_too_large_is_refused_and_what_was_there_stays(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(kept, "MAX_VALUE", 10)
    monkeypatch.setattr(kept, "MAX_TOTAL", 15)
    values = kept.KeptValues()
    assert "11 bytes" in values.keep("a", b"x" * 11)
    assert values.keep("a", b"x" * 10) == ""
    assert "of which 10 are used" in values.keep("b", b"x" * 6)
    assert values.keep("a", b"y" * 9) == "" and values.keep("b", b"x" * 6) == ""
    assert values.find("a") == b"y" * 9


def test_only_bytes_are_kept():
    assert "no bytes" in kept.KeptValues().keep("a", "text")  # type: ignore[arg-type]
