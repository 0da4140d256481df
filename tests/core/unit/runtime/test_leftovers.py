"""Who removes what killed processes have left, and who does not."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from shoal.runtime import leftovers
from shoal.runtime.leftovers import Claimant, claimant_here

HERE = claimant_here()
CLAIM = "import sys, os; from shoal.runtime import leftovers; leftovers.claim(sys.argv[1]); os._exit(0)"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where stores and temporary files are."""
    monkeypatch.setenv("SHOAL_STORE_DIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def directory_in(place: Path, name: str = "node") -> Path:
    directory = place / f"shoal-{os.getuid()}-{name}"
    directory.mkdir()
    return directory


def is_swept(directory: Path) -> bool:
    """Whether it is removed, now that its claim is no longer young."""
    os.utime(directory / ".claimed", (0, 0))
    leftovers.sweep()
    return not directory.exists()


def test_what_a_process_that_is_gone_has_claimed_is_removed_with_what_it_spilled(place: Path) -> None:
    directory = directory_in(place)
    spilled = place / "elsewhere" / f"{directory.name}-spilled"
    spilled.mkdir(parents=True)
    (directory / "spilled").symlink_to(spilled)
    subprocess.run([sys.executable, "-c", CLAIM, str(directory)], check=True)
    assert is_swept(directory) and not spilled.exists()


def test_what_a_process_has_that_lives_stays(place: Path) -> None:
    directory = directory_in(place)
    lock = leftovers.claim(directory)
    assert not is_swept(directory)
    os.close(lock)
    assert is_swept(directory)


@pytest.mark.parametrize(
    ("claimant", "goes"),
    [
        (HERE, True),
        (Claimant(HERE.machine, "an-earlier-boot"), True),
        (Claimant("another-container", HERE.boot), True),
        (Claimant("another-machine", "its-boot"), False),
        (Claimant("another-machine", ""), False),
    ],
)
def test_only_this_machine_sees_whether_a_claim_of_its_own_is_held(place: Path, claimant: Claimant, goes: bool) -> None:
    """No lock is held in the view of this machine: on a shared file system that says nothing of another machine."""
    directory = directory_in(place)
    (directory / ".claimed").write_text("\n".join(claimant))
    assert is_swept(directory) == goes


@pytest.mark.parametrize("text", [b"", b"\xff\xfe", b"one line", b"a\nb\nc"])
def test_a_claim_that_says_nothing_is_left(place: Path, text: bytes) -> None:
    directory = directory_in(place)
    (directory / ".claimed").write_bytes(text)
    assert not is_swept(directory)


def test_a_boot_that_is_not_known_is_not_the_same_as_another() -> None:
    assert not Claimant("one", "").is_judged_by(Claimant("other", ""))
