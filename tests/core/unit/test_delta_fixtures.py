"""The panel reads changes with code of its own, which is tested with a file that this code has written."""

from __future__ import annotations

from delta_fixtures import PATH, make_text


def test_the_panels_fixtures_are_those_of_today():
    assert PATH.read_text() == make_text(), "run: python tests/helpers/delta_fixtures.py"
