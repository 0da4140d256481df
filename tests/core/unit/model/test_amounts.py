"""Numbers as people read them."""

from __future__ import annotations

import pytest

from shoal.model.amounts import format_nbytes


@pytest.mark.parametrize(
    ("nbytes", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1.5 * 1024**2, "1.5 MiB"),
        (200 * 1024**2, "200 MiB"),
        (1024**3, "1.0 GiB"),
        (3.5 * 1024**4, "3.5 TiB"),
        (2048 * 1024**4, "2048 TiB"),
    ],
)
def test_bytes_are_said_to_people(nbytes: float, text: str) -> None:
    assert format_nbytes(nbytes) == text
