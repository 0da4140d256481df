"""Connection files: who finds which cluster, and what is left when one dies."""

from __future__ import annotations

import json
import os
import re
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from shoal.launch import registry
from shoal.launch.registry import Connection, Registration, find, find_by_name, list_clusters, register
from shoal.model.errors import ConnectError

TLS = {"ca": "CA-SECRET", "cert": "CERT-SECRET", "key": "KEY-SECRET"}


@pytest.fixture(autouse=True)
def runtime_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "runtime"))
    return tmp_path / "runtime" / "shoal"


def test_a_registry_without_a_place_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "file"))
    with pytest.raises(ConnectError, match=r"file/shoal` cannot be written to .*JUPYTER_RUNTIME_DIR"):
        register(connection(1), TLS)


@pytest.fixture
def registered() -> Iterator[list[Registration]]:
    made: list[Registration] = []
    yield made
    for registration in made:
        registration.remove()


def connection(number: int, **changes: Any) -> Connection:
    fields: dict[str, Any] = {
        "id": f"cluster-{number}",
        "name": f"name-{number}",
        "address": f"tls://127.0.0.1:{4000 + number}",
        "kind": "embedded",
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "created": 1000.0 + number,
        "notebook": "work.ipynb",
        "python": "3.11.7",
    }
    return Connection(**fields | changes)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def ids() -> list[str]:
    return [found.id for found in list_clusters()]


def test_no_clusters_at_first() -> None:
    assert list_clusters() == []
    assert find("cluster-1") is None
    assert find_by_name("name-1") is None


def test_a_cluster_is_found_while_it_lives(registered: list[Registration], runtime_directory: Path) -> None:
    registered.append(register(connection(1)))
    assert list_clusters() == [connection(1)]
    assert find("cluster-1") == connection(1)
    for name in ("cluster-1", "name-1", "tls://127.0.0.1:4001"):
        assert find_by_name(name) == connection(1)
    registered[0].remove()
    registered[0].remove()
    assert list_clusters() == []
    assert list(runtime_directory.iterdir()) == []


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077])
def test_only_its_user_gets_in(registered: list[Registration], runtime_directory: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        registered.append(register(connection(1), TLS))
    finally:
        os.umask(before)
    directory = runtime_directory / "cluster-1"
    assert mode(runtime_directory) == 0o700
    assert mode(directory) == 0o700
    assert {path.name: mode(path) for path in directory.iterdir()} == dict.fromkeys(
        ["alive", "ca.pem", "cert.pem", "connection.json", "key.pem"], 0o600
    )


def test_the_connection_file_holds_no_secret(registered: list[Registration], runtime_directory: Path) -> None:
    registered.append(register(connection(1), TLS))
    text = (runtime_directory / "cluster-1" / "connection.json").read_text()
    assert "SECRET" not in text
    assert json.loads(text) == connection(1, tls=True).to_json()
    (found,) = list_clusters()
    assert {role: Path(path).read_text() for role, path in found.tls_files().items()} == TLS
    assert "SECRET" not in repr(found) + json.dumps(found.to_json())


def test_without_tls_there_are_no_tls_files(registered: list[Registration]) -> None:
    registered.append(register(connection(1)))
    assert registered[0].connection.tls_files() == {}


def test_clusters_are_listed_oldest_first(registered: list[Registration]) -> None:
    for number in (3, 1, 2):
        registered.append(register(connection(number)))
    assert ids() == ["cluster-1", "cluster-2", "cluster-3"]


def test_a_cluster_with_several_drivers_is_listed_once(registered: list[Registration]) -> None:
    shared = "tls://10.0.0.1:8786"
    registered.append(register(connection(1, address=shared, kind="attached")))
    registered.append(register(connection(2, address=shared, kind="attached")))
    assert ids() == ["cluster-1"]
    assert find("cluster-2") is not None


def test_a_cluster_with_several_drivers_keeps_its_place(registered: list[Registration]) -> None:
    shared = "tls://10.0.0.1:8786"
    for number, address in ((1, shared), (2, "tls://10.0.0.2:8786"), (3, shared)):
        registered.append(register(connection(number, address=address)))
    assert ids() == ["cluster-1", "cluster-2"]


def test_of_one_name_the_newest_is_found(registered: list[Registration]) -> None:
    for number in (1, 2):
        registered.append(register(connection(number, name="same")))
    found = find_by_name("same")
    assert found is not None and found.id == "cluster-2"


@pytest.mark.parametrize("cluster_id", ["", ".", "..", "../shoal/cluster-1", "a/b", ".hidden", "\0", "cluster-9"])
def test_only_ids_are_looked_up(registered: list[Registration], cluster_id: str) -> None:
    registered.append(register(connection(1)))
    assert find(cluster_id) is None


REGISTER_AND_DIE = f"""
import dataclasses, os, signal, sys
from shoal.launch.registry import Connection, register
kept = register(Connection(**{connection(1, pid=0).to_json()!r}), {TLS!r})
print("registered", flush=True)
sys.stdin.read()
"""


def test_the_entry_of_a_killed_process_is_proven_dead_and_removed(runtime_directory: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", REGISTER_AND_DIE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "registered\n"
        assert ids() == ["cluster-1"], "it lives"
        process.kill()
        process.wait(10)
        assert (runtime_directory / "cluster-1" / "key.pem").exists()
        assert find("cluster-1") is None
        assert list(runtime_directory.iterdir()) == []
        assert list_clusters() == []


def test_the_entry_of_another_machine_is_taken_on_trust(registered: list[Registration]) -> None:
    """On a shared home its lock says nothing here."""
    registered.append(register(connection(1, host="elsewhere")))
    os.close(registered[0]._lock)
    registered[0]._lock = os.open(os.devnull, os.O_RDONLY)
    assert ids() == ["cluster-1"]


@pytest.mark.parametrize("text", ["", "not json", "[]", "{}", '{"id": 1, "surprise": 2}', "null"])
def test_a_file_that_makes_no_sense_is_passed_over(
    registered: list[Registration], runtime_directory: Path, text: str
) -> None:
    registered.append(register(connection(1)))
    broken = runtime_directory / "cluster-2"
    broken.mkdir()
    (broken / "connection.json").write_text(text)
    (runtime_directory / "a-file").write_text("")
    assert ids() == ["cluster-1"]
    assert find("cluster-2") is None


def test_an_entry_is_never_seen_half_written(registered: list[Registration], runtime_directory: Path) -> None:
    draft = runtime_directory / ".cluster-1.1"
    draft.mkdir(parents=True)
    (draft / "connection.json").write_text(json.dumps(connection(1).to_json()))
    assert list_clusters() == []
    assert draft.exists(), "it may be being written"


def test_the_lock_ends_with_the_entry_and_is_not_inherited(registered: list[Registration]) -> None:
    registration = register(connection(1))
    registered.append(registration)
    assert not os.get_inheritable(registration._lock)
    descriptor = registration._lock
    registration.remove()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


def test_the_same_id_is_not_registered_twice(registered: list[Registration]) -> None:
    registered.append(register(connection(1)))
    with pytest.raises(OSError, match=re.escape("cluster-1")):
        register(connection(1))
    assert ids() == ["cluster-1"]


def test_entries_live_where_jupyter_keeps_its_own(runtime_directory: Path) -> None:
    assert registry.registry_directory() == runtime_directory
