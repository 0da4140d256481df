"""Which accelerators a node has."""

from __future__ import annotations

from pathlib import Path

import pytest

from shoal.runtime import gpus
from shoal.runtime.gpus import count_gpus, visible_gpus


@pytest.mark.parametrize(
    ("mask", "count", "ids"),
    [("0,1", 2, ("0", "1")), ("3", 1, ("3",)), ("", 0, ()), ("-1", 0, ()), ("GPU-ab,GPU-cd", 2, ("GPU-ab", "GPU-cd"))],
)
def test_the_mask_decides(monkeypatch: pytest.MonkeyPatch, mask: str, count: int, ids: tuple[str, ...]) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", mask)
    assert count_gpus() == count and visible_gpus(count) == ids


def test_without_a_mask_the_driver_is_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(gpus, "_PROC", tmp_path)
    (tmp_path / "0000:01:00.0").mkdir()
    assert count_gpus() == 1 and visible_gpus(1) == ("0",)
    monkeypatch.setattr(gpus, "_PROC", tmp_path / "missing")
    assert count_gpus() == 0


def test_more_than_the_mask_has_are_numbered(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test's cluster may claim devices that the machine does not have."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    assert visible_gpus(2) == ("0", "1")
