"""What every searcher keeps to, and that those that learn do."""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable

import pytest

from shoal.errors import OptionError
from shoal_ml import tune
from shoal_ml.tune.searchers.searcher import Exhausted, Objective, Searcher
from shoal_ml.tune.space import Space

SPACE = {
    "x": tune.uniform(-5, 5),
    "n": tune.lograndint(1, 64),
    "q": tune.quniform(0, 1, 0.3),
    "kind": tune.choice({"a": {"u": tune.uniform(0, 1)}, "b": {"v": tune.randint(0, 5)}}),
    "constant": 7,
}
LOSS = Objective(("loss",), ("min",))
SEARCHERS: dict[str, Callable[[], Searcher]] = {
    "random": tune.RandomSearch,
    "grid": lambda: tune.GridSearch(3),
    "tpe": tune.OptunaSearch,
    "qmc": lambda: tune.OptunaSearch("qmc"),
    "nsgaii": lambda: tune.OptunaSearch("nsgaii"),
    "bohb": tune.BOHB,
    "limited": lambda: tune.ConcurrencyLimiter(tune.OptunaSearch(), 50),
}
pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")


@pytest.fixture(params=SEARCHERS)
def make(request: pytest.FixtureRequest) -> Callable[[], Searcher]:
    return SEARCHERS[request.param]


def begin(searcher: Searcher, space: dict = SPACE, seed: int = 0, **options) -> tuple[Searcher, Space]:
    made = Space(space, **options)
    searcher.begin(made, LOSS, seed)
    return searcher, made


def loss_of(config: dict) -> dict:
    return {"loss": (config["x"] - 1) ** 2, "training_iteration": 1}


def test_configurations_are_of_the_space_and_differ(make):
    searcher, space = begin(make())
    found = []
    for number in range(20):
        config = searcher.suggest(f"t{number}", {})
        assert config is not None and config["constant"] == 7
        space.values_of(config)
        found.append(repr(config))
        if number % 3 == 0:
            searcher.observed(f"t{number}", 1, loss_of(config))
            searcher.ended(f"t{number}", loss_of(config))
        elif number % 3 == 1:
            searcher.ended(f"t{number}", None)
    assert len(set(found)) >= 18


def test_the_same_seed_proposes_the_same(make):
    def propose(seed: int) -> list[dict | None]:
        searcher, _ = begin(make(), seed=seed)
        configs = []
        for number in range(15):
            configs.append(searcher.suggest(f"t{number}", {}))
            searcher.observed(f"t{number}", 1, loss_of(configs[-1]))
            searcher.ended(f"t{number}", loss_of(configs[-1]))
        return configs

    assert propose(3) == propose(3)


def test_what_is_fixed_is_so(make):
    searcher, _ = begin(make())
    config = searcher.suggest("t0", {"x": 0.25, "kind": 1, "kind.b.v": 2, "n": 3, "q": 0.3})
    assert config == {"x": 0.25, "n": 3, "q": 0.3, "kind": {"choice": "b", "v": 2}, "constant": 7}


def test_a_constraint_is_kept_to(make):
    searcher, _ = begin(make(), constraint=lambda config: config["x"] >= 0 and config["kind"]["choice"] == "a")
    for number in range(5):
        config = searcher.suggest(f"t{number}", {})
        assert config is not None and config["x"] >= 0 and "u" in config["kind"]


def test_it_learns_of_earlier_sessions(make):
    searcher, space = begin(make())
    rng = random.Random(1)
    for number in range(12):
        config = space.sample(rng)
        searcher.restored(f"t{number}", space.values_of(config), loss_of(config) if number % 4 else None)
    assert searcher.suggest("t12", {}) is not None


@pytest.mark.parametrize("name", ["tpe", "bohb"])
def test_learning_searchers_come_nearer_than_chance(name: str):
    space = {"x": tune.uniform(-5, 5), "y": tune.uniform(-5, 5)}

    def best_of(searcher: Searcher, seed: int) -> float:
        begin(searcher, space, seed)
        running: list[tuple[str, dict]] = []
        best = 100.0
        for number in range(60):  # four at once
            config = searcher.suggest(f"t{number}", {})
            assert config is not None
            running.append((f"t{number}", config))
            if len(running) == 4:
                trial_id, config = running.pop(0)
                metrics = {"loss": (config["x"] - 1) ** 2 + (config["y"] + 2) ** 2}
                best = min(best, metrics["loss"])
                searcher.observed(trial_id, 1, metrics)
                searcher.ended(trial_id, metrics)
        return best

    learnt = statistics.median(best_of(SEARCHERS[name](), seed) for seed in range(5))
    drawn = statistics.median(best_of(tune.RandomSearch(), seed) for seed in range(5))
    assert learnt < drawn


def test_a_grid_ends_and_has_every_combination():
    space = {"a": tune.choice([1, 2]), "k": tune.choice({"p": {"x": tune.uniform(0, 1)}, "q": {}})}
    searcher, _ = begin(tune.GridSearch(3), space)
    found = []
    with pytest.raises(Exhausted):
        while True:
            found.append(searcher.suggest("t", {}))
    assert len(found) == 2 * (3 + 1) and len({repr(config) for config in found}) == 8
    with pytest.raises(OptionError, match="has no ends"):
        begin(tune.GridSearch(), {"x": tune.randn()})


def test_several_objectives():
    searcher = tune.OptunaSearch("nsgaii")
    space = Space({"x": tune.uniform(0, 1)})
    searcher.begin(space, Objective(("a", "b"), ("min", "max")), 0)
    for number in range(5):
        config = searcher.suggest(f"t{number}", {})
        searcher.ended(f"t{number}", {"a": config["x"], "b": 1 - config["x"]})
    for single in (tune.BOHB(), tune.OptunaSearch("cmaes")):
        with pytest.raises(OptionError, match="optimises 1 metric"):
            single.begin(space, Objective(("a", "b"), ("min", "max")), 0)


def test_a_limited_searcher_waits():
    searcher, _ = begin(tune.ConcurrencyLimiter(tune.RandomSearch(), 2))
    assert searcher.suggest("t0", {}) and searcher.suggest("t1", {})
    assert searcher.suggest("t2", {}) is None
    searcher.ended("t0", {"loss": 1})
    assert searcher.suggest("t2", {})


def test_a_repeater_tells_the_mean():
    class Listening(tune.RandomSearch):
        heard: list = []  # noqa: RUF012

        def ended(self, trial_id, metrics):
            self.heard.append((trial_id, metrics))

    searcher, _ = begin(tune.Repeater(Listening(), 3, seed_key="seed"))
    configs = [searcher.suggest(f"t{number}", {}) for number in range(4)]
    assert [config["seed"] for config in configs] == [0, 1, 2, 0]
    assert configs[0]["x"] == configs[2]["x"] != configs[3]["x"]
    searcher.ended("t0", {"loss": 1.0})
    searcher.ended("t1", None)
    searcher.ended("t2", {"loss": 3.0})
    assert Listening.heard == [("t0", {"loss": 2.0})]


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: tune.OptunaSearch("tpee"), "is one of tpe"),
        (lambda: tune.GridSearch(0), "`points`"),
        (lambda: tune.ConcurrencyLimiter(tune.RandomSearch(), 0), "`max_concurrent`"),
        (lambda: tune.Repeater(tune.RandomSearch(), True), "`repeat`"),
        (lambda: tune.BOHB(random_share=2), "`random_share`"),
        (lambda: begin(tune.RandomSearch(), constraint=lambda config: False)[0].suggest("t", {}), "allowed none"),
    ],
)
def test_what_makes_no_sense_is_refused(make, says):
    with pytest.raises(OptionError, match=says):
        make()
