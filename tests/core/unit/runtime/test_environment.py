"""What a node's administrator says in the environment, and what is refused of it."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest

import shoal
from shoal.model.errors import OptionError
from shoal.runtime import environment
from shoal.runtime.environment import NodeSettings, event_log_root, node_settings, spill_root, store_root


def test_nothing_said_leaves_it_to_the_machine() -> None:
    assert node_settings({}) == NodeSettings()
    assert node_settings({"SHOAL_STORE_MEMORY": "", "SHOAL_SILENCE": "", "SHOAL_LABELS": ""}) == NodeSettings()


def test_everything_said(tmp_path: Path) -> None:
    environ = {
        "SHOAL_STORE_DIR": str(tmp_path),
        "SHOAL_STORE_MEMORY": "2e9",
        "SHOAL_SPILL_DIR": "/spilled",
        "SHOAL_SPILL_LIMIT": "0",
        "SHOAL_MEMORY_THRESHOLD": "0.5",
        "SHOAL_MEMORY_LIMIT": "400_000_000",
        "SHOAL_SILENCE": "7.5",
        "SHOAL_LABELS": "zone=a",
        "SHOAL_PY_SPY": "0",
    }
    assert node_settings(environ) == NodeSettings(
        tmp_path, 2_000_000_000, Path("/spilled"), 0, 0.5, 400_000_000, 7.5, {"zone": "a"}, False
    )


@pytest.mark.parametrize(
    ("name", "text"),
    [
        *((name, text) for name in ("SHOAL_STORE_MEMORY", "SHOAL_SPILL_LIMIT", "SHOAL_MEMORY_LIMIT", "SHOAL_SILENCE")
          for text in ("abc", "-1", "nan", "inf", "4GB")),
        *(("SHOAL_MEMORY_THRESHOLD", text) for text in ("95", "-0.1", "much", "nan")),
        *(("SHOAL_LABELS", text) for text in ("zone", "=a", "zone=a,disk")),
        ("SHOAL_SILENCE", "0"),
        ("SHOAL_PY_SPY", "no"),
        ("SHOAL_STORE_DIR", "/nowhere"),
        ("SHOAL_STORE_DIR", "/dev/null"),
        ("SHOAL_STORE_MEMORY", "0"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_in_the_driver_with_one_sentence(
    monkeypatch: pytest.MonkeyPatch, name: str, text: str
) -> None:
    monkeypatch.setenv(name, text)
    with pytest.raises(OptionError, match=f"^The environment variable `{name}` must ") as raised:
        shoal.init(num_cpus=1)
    assert "\n" not in str(raised.value)
    assert not shoal.is_initialized()


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("zone=a", {"zone": "a"}),
        (" zone = a , disk=ssd,", {"zone": "a", "disk": "ssd"}),
        ("x=a=b", {"x": "a=b"}),
    ],
)
def test_labels(text: str, labels: dict[str, str]) -> None:
    assert node_settings({"SHOAL_LABELS": text}).labels == labels


def test_where_values_are_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SHOAL_STORE_DIR", str(tmp_path))
    monkeypatch.setenv("SHOAL_SPILL_DIR", str(tmp_path / "spilled"))
    assert (store_root(), spill_root()) == (tmp_path, tmp_path / "spilled")
    monkeypatch.delenv("SHOAL_STORE_DIR")
    monkeypatch.delenv("SHOAL_SPILL_DIR")
    assert os.access(store_root(), os.W_OK)
    assert spill_root() == Path(tempfile.gettempdir())


def test_shared_memory_too_small_to_be_of_use_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SHOAL_STORE_DIR", raising=False)
    size = shutil.disk_usage(environment.SHARED_MEMORY).total
    monkeypatch.setattr(environment, "LEAST_SHARED", size)
    assert store_root() == environment.SHARED_MEMORY
    monkeypatch.setattr(environment, "LEAST_SHARED", size + 1)
    elsewhere = Path(tempfile.gettempdir())
    has_more = shutil.disk_usage(elsewhere).free > size
    assert store_root() == (elsewhere if has_more else environment.SHARED_MEMORY)


def test_where_logs_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path))
    assert event_log_root({}) == event_log_root({"SHOAL_EVENT_LOG": "1"}) == tmp_path / "shoal" / "logs"
    assert event_log_root({"SHOAL_EVENT_LOG": "0"}) is None
    assert event_log_root({"SHOAL_EVENT_LOG": str(tmp_path / "mine")}) == tmp_path / "mine"
    (tmp_path / "file").write_text("")
    for wrong in ("logs", "off", str(tmp_path / "file")):
        with pytest.raises(OptionError, match="SHOAL_EVENT_LOG"):
            event_log_root({"SHOAL_EVENT_LOG": wrong})
