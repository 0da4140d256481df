"""Segments that other machines read stay mapped between the pieces, and no longer."""

from __future__ import annotations

from pathlib import Path

import pytest

from shoal.runtime import lending
from shoal.runtime.lending import Lending, map_for_reading
from shoal.runtime.store import Store


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("SHOAL_STORE_DIR", str(tmp_path))
    return Store.create("node", "tcp://here")


def keep(lent: Lending, path: str) -> None:
    whole = map_for_reading(path)
    assert whole is not None
    lent.keep(path, whole)


def test_kept_until_it_was_not_read_for_a_while(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(lending.time, "monotonic", lambda: now)
    lent = Lending()
    one, two = (store.write(f"owner.obj-{number}", [b"x" * 100])[0] for number in (1, 2))
    keep(lent, one)
    keep(lent, two)
    now += lending.KEEP - 0.1
    assert bytes(lent.find(one)[:3]) == b"xxx"
    now += 0.2
    lent.tend()
    assert lent.find(two) is None and lent.find(one) is not None
    lent.freed(one)
    assert lent.find(one) is None


def test_only_so_many(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lending, "MAX_MAPPED", 2)
    lent = Lending()
    paths = [store.write(f"owner.obj-{number}", [b"x" * 100])[0] for number in range(3)]
    for path in paths:
        keep(lent, path)
    assert [lent.find(path) is not None for path in paths] == [False, True, True]


def test_what_is_gone_is_none(store: Store) -> None:
    path, _ = store.write("owner.obj-1", [b"x" * 100])
    store.free("owner.obj-1")
    assert map_for_reading(path) is None
