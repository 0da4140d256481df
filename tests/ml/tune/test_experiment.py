"""The experiment as a machine: whatever happens in whatever order, every trial ends once and nothing is stuck."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal_ml import tune
from shoal_ml.tune.experiment import Begin, Experiment, GoOn, Halt, Limits
from shoal_ml.tune.schedulers.scheduler import TrialScheduler
from shoal_ml.tune.searchers.searcher import Objective
from shoal_ml.tune.space import Space
from shoal_ml.tune.stoppers import make_stopper
from shoal_ml.tune.trials import ERROR, PENDING, RUNNING, TERMINATED

SCHEDULERS = {
    "fifo": TrialScheduler,
    "asha": lambda: tune.ASHA(max_t=9, reduction_factor=3),
    "hyperband": lambda: tune.HyperBand(max_t=9, reduction_factor=3),
    "pbt": lambda: tune.PBT({"x": tune.uniform(0, 1)}, perturbation_interval=2),
}


def make(scheduler: TrialScheduler | None = None, *, space=None, searcher=None, stop=None, points=None, **limits):
    objective = Objective(("score",), ("max",))
    searcher, scheduler = searcher or tune.RandomSearch(), scheduler or TrialScheduler()
    made = Space(space or {"x": tune.uniform(0, 1)})
    searcher.begin(made, objective, 0)
    scheduler.begin(objective, random.Random(0))
    limits = {"num_samples": 4, "max_concurrent": 2, **limits}
    return Experiment(made, objective, searcher, scheduler, make_stopper(stop), Limits(**limits), points)


def score(value: float) -> dict[str, float]:
    return {"score": value}


def test_no_more_run_than_may():
    experiment = make()
    assert experiment.go_on() == [Begin("trial-00000"), Begin("trial-00001")] and experiment.go_on() == []
    assert experiment.reported("trial-00000", score(1)) == [GoOn("trial-00000")]
    assert experiment.returned("trial-00000") == [Begin("trial-00002")]
    assert experiment.trials["trial-00000"].metrics == {"score": 1, "training_iteration": 1}


def test_a_grid_is_tried_as_often_as_there_are_samples():
    experiment = make(
        space={"a": tune.grid_search([1, 2, 3]), "x": tune.uniform(0, 1)}, num_samples=2, max_concurrent=9
    )
    assert len(experiment.go_on()) == 6
    assert [trial.config["a"] for trial in experiment.trials.values()] == [1, 2, 3, 1, 2, 3]


def test_points_come_first():
    experiment = make(points=[{"x": 0.125}, {"x": 0.25}])
    experiment.go_on()
    assert [trial.config["x"] for trial in experiment.trials.values()] == [0.125, 0.25]


def test_failures_are_tried_again_as_often_as_allowed_from_the_last_checkpoint():
    experiment = make(max_failures=1, num_samples=1)
    experiment.go_on()
    experiment.reported("trial-00000", score(1), True)
    assert experiment.failed("trial-00000", "ValueError: no") == [Begin("trial-00000", "trial-00000")]
    assert experiment.failed("trial-00000", "ValueError: no") == []
    assert experiment.trials["trial-00000"].state == ERROR and experiment.is_over


def test_the_first_failure_may_end_it():
    experiment = make(fail_fast=True)
    experiment.go_on()
    assert experiment.failed("trial-00000", "ValueError: no") == [Halt("trial-00001")]
    assert experiment.is_over and "ValueError" in experiment.trials["trial-00001"].reason


def test_a_stopper_ends_a_trial_and_another_all():
    experiment = make(stop={"score": 5}, max_concurrent=1)
    experiment.go_on()
    assert experiment.reported("trial-00000", score(5)) == [Halt("trial-00000"), Begin("trial-00001")]
    experiment = make(stop=tune.ExperimentPlateau("score", mode="max", patience=1), max_concurrent=1)
    experiment.go_on()
    experiment.reported("trial-00000", score(5))
    experiment.returned("trial-00000")
    assert experiment.reported("trial-00001", score(4)) == [GoOn("trial-00001"), Halt("trial-00001")]
    assert experiment.is_over


def test_what_users_ask_for():
    experiment = make(num_samples=1)
    experiment.go_on()
    experiment.reported("trial-00000", score(1), True)
    assert experiment.clone("trial-00000", {"x": 0.5}) == [Begin("trial-00001", "trial-00000")]
    assert experiment.add_samples(1) == []
    assert experiment.stop("trial-00000") == [Halt("trial-00000"), Begin("trial-00002")]
    assert experiment.stop_all("enough") == [Halt("trial-00001"), Halt("trial-00002")] and experiment.is_over


@given(st.data(), st.sampled_from(sorted(SCHEDULERS)))
def test_every_trial_ends_whatever_happens(data: st.DataObject, name: str):
    count, width = data.draw(st.integers(1, 12)), data.draw(st.integers(1, 4))
    failures = data.draw(st.integers(0, 2))
    experiment = make(SCHEDULERS[name](), num_samples=count, max_concurrent=width, max_failures=failures)
    running: set[str] = set()
    steps: dict[str, int] = {}

    def do(actions) -> None:
        for action in actions:
            match action:
                case Begin(trial_id=trial_id, source=source):
                    assert trial_id not in running and len(running) < width
                    assert not source or experiment.trials[source].checkpoint_step
                    running.add(trial_id)
                case Halt(trial_id=trial_id):
                    running.remove(trial_id)
                case GoOn(trial_id=trial_id):
                    assert trial_id in running
        assert running == {one.trial_id for one in experiment.trials.values() if one.state == RUNNING}

    do(experiment.go_on())
    while not experiment.is_over:
        assert running, "stuck"
        trial_id = data.draw(st.sampled_from(sorted(running)))
        what = data.draw(st.sampled_from(["report", "report", "report", "return", "fail"]))
        steps[trial_id] = steps.get(trial_id, 0) + 1
        if what == "fail":
            running.remove(trial_id)
            do(experiment.failed(trial_id, "an error"))
        elif what == "return" or steps[trial_id] > 12:
            running.remove(trial_id)
            do(experiment.returned(trial_id))
        else:
            do(
                experiment.reported(
                    trial_id, score(data.draw(st.floats(0, 1))), data.draw(st.booleans()) or name == "pbt"
                )
            )
    assert not running and not experiment.live
    assert all(trial.state in (TERMINATED, ERROR) for trial in experiment.trials.values())
    assert len(experiment.trials) == count


def test_what_had_not_ended_goes_on_after_a_restart():
    experiment = make(num_samples=3, max_concurrent=1)
    experiment.go_on()
    experiment.reported("trial-00000", score(3))
    experiment.returned("trial-00000")
    experiment.reported("trial-00001", score(2), True)
    again = make(num_samples=3, max_concurrent=1)
    for trial in experiment.trials.values():
        copy = type(trial)(trial.trial_id, trial.config, trial.values, state=trial.state)
        again.restore(copy)
    again.replay("trial-00000", score(3), False)
    again.replay("trial-00001", score(2), True)
    again.restored()
    assert again.trials["trial-00001"].state == PENDING
    assert again.go_on() == [Begin("trial-00001", "trial-00001")]
    assert again.returned("trial-00001") == [Begin("trial-00002")]
    assert again.trials["trial-00002"].config != again.trials["trial-00000"].config


@pytest.mark.parametrize("count", [0, -1, 1.5])
def test_samples_that_are_none(count):
    with pytest.raises(ValueError, match="`count`"):
        make().add_samples(count)
