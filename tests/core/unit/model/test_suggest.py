"""“Did you mean …”."""

from __future__ import annotations

import pytest

from shoal.model.suggest import did_you_mean


@pytest.mark.parametrize(
    ("word", "answer"),
    [
        ("num_cpu", " Did you mean `num_cpus`?"),
        ("mem", " Did you mean `memory`?"),
        ("memroy", " Did you mean `memory`?"),
        ("zzz", ""),
        ("", ""),
    ],
)
def test_the_closest_known_word_is_suggested(word: str, answer: str) -> None:
    assert did_you_mean(word, ["num_cpus", "num_gpus", "memory"]) == answer


def test_any_iterable_will_do() -> None:
    assert did_you_mean("nam", iter({"name"})) == " Did you mean `name`?"
    assert did_you_mean("name", ()) == ""
