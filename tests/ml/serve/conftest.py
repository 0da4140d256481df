"""A cluster for each module, with HTTP on a free port."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import shoal
from shoal_ml import serve


@pytest.fixture(scope="module")
def cluster() -> Iterator[shoal.Cluster]:
    with shoal.init(num_cpus=2) as joined:
        yield joined


@pytest.fixture(scope="module")
def url(cluster: shoal.Cluster) -> str:
    """Where HTTP is served."""
    return serve.start({"port": 0, "header_timeout_s": 1.0, "max_body_bytes": 1 << 20, "max_headers": 50})


@pytest.fixture
def applications(cluster: shoal.Cluster) -> Iterator[None]:
    """End what a test has served, but for what was there before."""
    before = {row.name for row in serve.status().applications}
    yield
    for row in serve.status().applications:
        if row.name not in before:
            serve.delete(row.name)
