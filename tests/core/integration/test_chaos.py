"""A mixed workload while everything around it is killed, stopped and cut off: every result right, nothing left."""

from __future__ import annotations

import secrets

import chaos
import pytest

SECONDS = 40.0


@pytest.mark.timeout(420)
def test_chaos(capsys: pytest.CaptureFixture[str]) -> None:
    seed = secrets.randbelow(1_000_000)

    def say(text: str) -> None:
        with capsys.disabled():
            print(f"\n{text}", end="")

    summary = chaos.run(seed, SECONDS, say)
    assert summary["jobs"] > 50 and len(summary) > 3, "it was chaos"
