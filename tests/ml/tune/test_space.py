"""Search spaces: what is chosen lies where it may, and every choice has a name of its own."""

from __future__ import annotations

import json
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.errors import OptionError
from shoal_ml import tune
from shoal_ml.tune.space import Choice, Float, Integer, Space, flatten

NESTED = {
    "lr": tune.loguniform(1e-4, 1e-1),
    "layers": [tune.randint(1, 4), tune.quniform(0, 1, 0.25)],
    "model": tune.choice(
        {
            "svm": {"C": tune.uniform(0.1, 10), "kernel": tune.choice(["rbf", "linear"])},
            "tree": {"C": tune.randint(2, 9), "deep": {"er": tune.lograndint(1, 100)}},
        }
    ),
    "fixed": "sgd",
    "twice": tune.sample_from(lambda config: 2 * config["lr"]),
}


@given(st.integers())
def test_configurations_have_the_shape_of_the_space(seed: int):
    space = Space(NESTED)
    config = space.sample(random.Random(seed))
    assert list(config) == list(NESTED)
    assert 1e-4 <= config["lr"] <= 1e-1 and config["twice"] == 2 * config["lr"] and config["fixed"] == "sgd"
    assert config["layers"][0] in (1, 2, 3) and config["layers"][1] in (0, 0.25, 0.5, 0.75, 1)
    if config["model"]["choice"] == "svm":
        assert set(config["model"]) == {"choice", "C", "kernel"} and config["model"]["kernel"] in ("rbf", "linear")
    else:
        assert set(config["model"]) == {"choice", "C", "deep"} and 1 <= config["model"]["deep"]["er"] < 100
    values = space.values_of(config)
    assert space.resolve(lambda path, domain: values[path]) == config
    json.dumps(values)


def test_the_same_parameter_of_two_options_is_two():
    names = [path for path, _ in Space(NESTED).domains()]
    assert "model.svm.C" in names and "model.tree.C" in names and len(set(names)) == len(names)


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6), st.integers(0, 2**32))
def test_numbers_lie_between_their_bounds(low: float, width: float, seed: int):
    rng = random.Random(seed)
    domain = Float(low, low + width, step=width / 7)
    value = domain.sample(rng)
    assert domain.low <= value <= domain.high
    whole = Integer(int(low), int(low) + 1 + int(width), step=3)
    assert whole.contains(whole.sample(rng)) and (whole.sample(rng) - whole.low) % 3 == 0


def test_logarithmic_ranges_are_even_by_the_logarithm():
    rng = random.Random(0)
    draws = [tune.loguniform(1e-4, 1e4).sample(rng) for _ in range(4_000)]
    assert abs(sum(map(math.log10, draws)) / len(draws)) < 0.15
    whole = [tune.lograndint(1, 1_000).sample(rng) for _ in range(4_000)]
    assert 0.25 < sum(one < 10 for one in whole) / len(whole) < 0.42 and max(whole) < 1_000


def test_grids_are_all_combinations():
    space = Space(
        {"a": tune.grid_search([1, 2]), "b": {"c": tune.grid_search(["x", "y", "z"])}, "d": tune.uniform(0, 1)}
    )
    assert len(space.grid()) == 6 and space.grid()[1] == {"a": 1, "b.c": "y"}
    assert Space({}).grid() == [{}]


def test_points_are_read_by_what_they_choose():
    space = Space(NESTED)
    values = space.values_of({"lr": 0.01, "model": {"choice": "tree", "C": 3}})
    assert values == {"lr": 0.01, "model": 1, "model.tree.C": 3}
    for point, says in (
        ({"lrr": 0.1}, "Did you mean `lr`"),
        ({"lr": 5}, "`lr` cannot be 5"),
        ({"model": {"choice": "forest"}}, "`model` cannot be"),
        ({"fixed": "adam"}, "is always 'sgd'"),
    ):
        with pytest.raises(OptionError, match=says):
            space.values_of(point)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: tune.uniform(2, 1), "2 is not below 1"),
        (lambda: tune.loguniform(0, 1), "begins above 0"),
        (lambda: tune.uniform(0, math.inf), "finite numbers"),
        (lambda: tune.randint(3, 3), "Nothing lies between"),
        (lambda: tune.lograndint(0, 9), "begins at 1"),
        (lambda: tune.randint(0, 1.5), "are whole"),
        (lambda: tune.quniform(0, 1, 2), "fit between"),
        (lambda: tune.randn(0, 0), "above 0"),
        (lambda: tune.choice([]), "at least one option"),
        (lambda: tune.choice("abc"), "a list of options"),
        (lambda: tune.choice({"a": 3}), "A named option is a dictionary"),
        (lambda: tune.grid_search([]), "at least one value"),
        (lambda: tune.sample_from(3), "takes a function"),
        (lambda: Space([]), "is a dictionary"),
        (lambda: Space({"m": tune.choice({"a": {"x": tune.grid_search([1])}})}), "a grid within a choice"),
    ],
)
def test_what_makes_no_sense_is_refused(make, says):
    with pytest.raises(OptionError, match=says):
        make()


def test_flat_names():
    assert flatten({"a": {"b": 1, "c": {}}, "d": [1]}) == {"a.b": 1, "a.c": {}, "d": [1]}
    assert Choice((1, 2)).number_of(2) == 1
