"""Trial schedulers decide as their papers say."""

from __future__ import annotations

import random

import pytest

from shoal.errors import OptionError
from shoal_ml import tune
from shoal_ml.tune.schedulers.scheduler import CONTINUE, PAUSE, Continue, Exploit, Stop, TrialScheduler
from shoal_ml.tune.searchers.searcher import Objective

SCHEDULERS = {
    "fifo": TrialScheduler,
    "asha": lambda: tune.ASHA(max_t=9, reduction_factor=3),
    "hyperband": lambda: tune.HyperBand(max_t=9, reduction_factor=3),
    "median": lambda: tune.MedianStopping(grace_period=2, min_samples=2),
    "pbt": lambda: tune.PBT({"x": tune.uniform(0, 1)}, perturbation_interval=2),
    "pb2": lambda: tune.PB2({"x": (0.0, 1.0)}, perturbation_interval=2),
}


def begin(scheduler: TrialScheduler, count: int = 0, mode: str = "max") -> TrialScheduler:
    scheduler.begin(Objective(("score",), (mode,)), random.Random(0))
    for number in range(count):
        scheduler.added(f"t{number}", {"x": number / 10})
    return scheduler


def report(scheduler: TrialScheduler, number: int, time: int, score: float):
    return scheduler.reported(f"t{number}", {"training_iteration": time, "score": score})


@pytest.mark.parametrize("name", SCHEDULERS)
@pytest.mark.parametrize("odd", [float("nan"), None, "text"])
def test_every_scheduler_copes_with_metrics_that_are_none(name: str, odd: object):
    scheduler = begin(SCHEDULERS[name](), 4)
    for time in (1, 2, 3):
        for number in range(3):
            decision = scheduler.reported(f"t{number}", {"training_iteration": time, "score": odd})
            assert isinstance(decision, Continue | Stop) or decision is PAUSE
    scheduler.failed("t0")
    scheduler.ended("t1", {})


def test_asha_lets_the_best_of_each_rung_through():
    scheduler = begin(tune.ASHA(max_t=16, grace_period=1, reduction_factor=4), 8)
    assert report(scheduler, 0, 1, 0.5) == CONTINUE  # the first has nobody to be compared with
    assert isinstance(report(scheduler, 1, 1, 0.1), Stop)
    assert report(scheduler, 2, 1, 0.9) == CONTINUE
    assert isinstance(report(scheduler, 3, 1, 0.5), Stop)
    assert report(scheduler, 2, 2, 0.0) == CONTINUE  # no rung
    assert report(scheduler, 2, 4, 0.0) == CONTINUE  # the first at the next one
    assert isinstance(report(scheduler, 2, 16, 0.0), Stop)


def test_asha_of_a_minimum_with_steps_over_rungs():
    scheduler = begin(tune.ASHA(max_t=100, grace_period=10, reduction_factor=2), 3, mode="min")
    assert report(scheduler, 0, 15, 1.0) == CONTINUE
    assert isinstance(report(scheduler, 1, 15, 2.0), Stop)
    assert report(scheduler, 2, 45, 0.5) == CONTINUE  # the highest rung that it has passed


def test_asha_divides_trials_among_brackets():
    scheduler = begin(tune.ASHA(max_t=27, reduction_factor=3, brackets=3), 26)
    assert scheduler._num_in == [18, 6, 2]


def test_hyperband_halves_as_in_the_paper():
    # R = 9, eta = 3: brackets of 9 trials for 1, of 5 for 3, of 3 for 9
    scheduler = begin(tune.HyperBand(max_t=9, reduction_factor=3), 17)
    assert [bracket.target for bracket in scheduler._brackets] == [1, 3, 9]
    decisions = [report(scheduler, number, 1, number / 10) for number in range(9)]
    assert decisions[:8] == [PAUSE] * 8 and decisions[8] == CONTINUE
    assert sorted(scheduler.stopped_while_paused()) == [f"t{number}" for number in range(6)]
    assert {scheduler.next_paused(("t6", "t7"), True), "t6"} == {"t6"}
    for number in (6, 7, 8):
        last = report(scheduler, number, 3, number / 10)
    assert last == CONTINUE and set(scheduler.stopped_while_paused()) == {"t6", "t7"}
    assert isinstance(report(scheduler, 8, 9, 1.0), Stop)
    assert report(scheduler, 9, 1, 0.0) == CONTINUE and report(scheduler, 9, 3, 0.0) == PAUSE
    assert report(scheduler, 14, 3, 0.0) == CONTINUE


def test_hyperband_goes_on_when_no_more_trials_come():
    scheduler = begin(tune.HyperBand(max_t=9, reduction_factor=3), 2)
    assert report(scheduler, 0, 1, 0.1) == PAUSE and report(scheduler, 1, 1, 0.9) == PAUSE
    assert scheduler.next_paused(("t0", "t1"), can_wait=True) is None
    assert scheduler.next_paused(("t0", "t1"), can_wait=False) == "t1"
    assert scheduler.stopped_while_paused() == ["t0"]


def test_a_trial_that_fails_does_not_hold_up_its_bracket():
    scheduler = begin(tune.HyperBand(max_t=3, reduction_factor=3), 3)
    assert report(scheduler, 0, 1, 0.1) == PAUSE and report(scheduler, 1, 1, 0.2) == PAUSE
    scheduler.failed("t2")
    assert scheduler.next_paused(("t0", "t1"), True) == "t1" and scheduler.stopped_while_paused() == ["t0"]


def test_the_median_rule():
    scheduler = begin(tune.MedianStopping(grace_period=2, min_samples=3), 4)
    for number, score in enumerate((0.5, 0.6, 0.7)):
        for time in (1, 2, 3):
            assert report(scheduler, number, time, score) == CONTINUE
    assert report(scheduler, 3, 1, 0.0) == CONTINUE
    assert isinstance(report(scheduler, 3, 2, 0.55), Stop)
    assert report(scheduler, 3, 3, 0.65) == CONTINUE


def test_population_based_training_clones_the_best():
    scheduler = begin(tune.PBT({"x": tune.uniform(0, 1)}, perturbation_interval=2, resample_probability=0), 4)
    decisions = {}
    for time in (1, 2):
        for number in (3, 2, 1, 0):
            decisions[number, time] = report(scheduler, number, time, number)
    assert all(decision == CONTINUE for (_, time), decision in decisions.items() if time == 1)
    exploit = decisions[0, 2]
    assert isinstance(exploit, Exploit) and exploit.source == "t3"
    assert any(exploit.config["x"] == pytest.approx(0.3 * factor) for factor in (1.2, 0.8))
    assert report(scheduler, 0, 3, 0) == CONTINUE  # the next comparison is at 4


def test_mutations_keep_to_their_domains():
    mutations = {"x": tune.uniform(0, 1), "n": tune.randint(1, 5), "k": ["a", "b", "c"], "deep.f": lambda: 7}
    scheduler = tune.PBT(mutations)
    begin(scheduler)
    for _ in range(200):
        config = scheduler.explore({"x": 0.9, "n": 4, "k": "b", "deep": {"f": 3}, "other": 1}, 0)
        assert 0 <= config["x"] <= 1 and config["n"] in (1, 2, 3, 4) and config["k"] in "abc" and config["other"] == 1
    with pytest.raises(OptionError, match=r"`deep\.f`, which the configuration has not"):
        scheduler.added("t0", {"x": 1, "n": 1, "k": "a"})


def test_population_based_bandits_move_towards_what_improves():
    scheduler = tune.PB2({"x": (0.0, 1.0)}, perturbation_interval=1)
    begin(scheduler)
    for number in range(8):
        scheduler.added(f"t{number}", {"x": number / 7})
    totals = [0.0] * 8
    for time in range(1, 8):
        for number in range(8):
            totals[number] += 1 - abs(scheduler.members[f"t{number}"].config["x"] - 0.8)
            report(scheduler, number, time, totals[number])
    proposals = [scheduler.explore({"x": 0.5}, 8.0)["x"] for _ in range(20)]
    assert sum(abs(x - 0.8) < 0.25 for x in proposals) >= 15


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: tune.ASHA(max_t=1, grace_period=2), "`grace_period`"),
        (lambda: tune.ASHA(reduction_factor=1), "`reduction_factor`"),
        (lambda: tune.ASHA(brackets=0), "`brackets`"),
        (lambda: tune.HyperBand(max_t=0), "`max_t`"),
        (lambda: tune.MedianStopping(min_samples=0), "`min_samples`"),
        (lambda: tune.PBT({}), "at least one parameter"),
        (lambda: tune.PBT({"x": [1]}, quantile=0.7), "`quantile`"),
        (lambda: tune.PBT({"x": [1]}, perturbation_interval=0), "`perturbation_interval`"),
        (lambda: tune.PB2({"x": (1, 0)}), "a lower and an upper bound"),
    ],
)
def test_what_makes_no_sense_is_refused(make, says):
    with pytest.raises(OptionError, match=says):
        make()


def test_time_that_is_not_reported_is_named():
    scheduler = begin(tune.ASHA(time_attr="epoch"), 1)
    with pytest.raises(ValueError, match="`epoch`, by which `ASHA` measures time, is None"):
        report(scheduler, 0, 1, 0.5)
