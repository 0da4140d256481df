"""What all tests have in common."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session", autouse=True)
def event_logs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Logs of the tests' clusters are no business of the user's: they have a directory of their own, this one."""
    directory = tmp_path_factory.mktemp("logs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SHOAL_EVENT_LOG", str(directory))
        yield directory
