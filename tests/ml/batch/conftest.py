"""One cluster for the tests of datasets."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import shoal


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    with shoal.init(num_cpus=2):
        yield
