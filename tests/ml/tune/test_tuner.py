"""The tuner on a real cluster."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import shoal
from shoal.errors import OptionError
from shoal_ml import tune


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    with shoal.init(num_cpus=2):
        yield


def parabola(config):
    return {"loss": (config["x"] - 2) ** 2}


def curve(config):
    start = tune.get_checkpoint() or {"step": 0}
    for step in range(start["step"], 9):
        tune.report(
            {"score": config["x"] * (step + 1)}, checkpoint={"step": step + 1, "weights": np.full(50_000, step)}
        )


def search(path: Path, trainable, space, **options):
    run = {
        name: options.pop(name)
        for name in ("stop", "max_failures", "fail_fast", "name", "keep_checkpoints")
        if name in options
    }
    options = {"metric": "score", "seed": 0, **options}
    return tune.Tuner(
        trainable, space, tune.TuneConfig(**options), tune.RunConfig(storage=path, **{"name": "run", **run})
    )


def test_a_grid(tmp_path):
    tuner = search(tmp_path, parabola, {"x": tune.grid_search([0, 1, 2, 3])}, metric="loss", mode="min")
    results = tuner.fit()
    assert len(results) == 4 and results.best.config == {"x": 2} and not results.errors
    frame = results.get_dataframe()
    assert frame["loss"].tolist() == [4, 1, 0, 1] and set(frame["state"]) == {"TERMINATED"}
    assert "<table" in results._repr_html_() and "best loss 0" in repr(results)


def test_reports_checkpoints_and_files(tmp_path):
    results = search(tmp_path, curve, {"x": tune.uniform(0, 1)}, num_samples=2).fit()
    best = results.best
    assert best.metrics["training_iteration"] == 9 and best.checkpoint["step"] == 9
    assert best.checkpoint["weights"][0] == 8
    assert best.metrics_dataframe["score"].tolist() == pytest.approx([best.config["x"] * n for n in range(1, 10)])
    assert json.loads((best.path / "params.json").read_text()) == best.config
    assert len(list(best.path.glob("checkpoint-*"))) == 1


@pytest.mark.parametrize(
    "scheduler",
    [
        tune.ASHA(max_t=9, reduction_factor=3),
        tune.HyperBand(max_t=9, reduction_factor=3),
        tune.MedianStopping(grace_period=2, min_samples=2),
        tune.PBT({"x": tune.uniform(0, 1)}, perturbation_interval=3),
        tune.PB2({"x": (0.0, 1.0)}, perturbation_interval=3),
    ],
    ids=lambda scheduler: type(scheduler).__name__,
)
def test_every_scheduler_finds_the_best(tmp_path, scheduler):
    results = search(tmp_path, curve, {"x": tune.uniform(0, 1)}, num_samples=12, scheduler=scheduler).fit()
    frame = results.get_dataframe()
    assert len(frame) == 12 and not results.errors and set(frame["state"]) == {"TERMINATED"}
    assert results.best.metrics["score"] == frame["score"].max()
    if not isinstance(scheduler, tune.PBT):
        assert frame["training_iteration"].sum() < 12 * 9 and frame["training_iteration"].max() == 9


def test_a_clone_goes_on_from_the_checkpoint_of_the_best(tmp_path):
    def inherit(config):
        state = tune.get_checkpoint() or {"step": 0, "line": []}
        for step in range(state["step"], 8):
            state = {"step": step + 1, "line": [*state["line"], round(config["x"], 3)]}
            tune.report({"score": sum(state["line"]), "line": str(state["line"])}, checkpoint=state)

    pbt = tune.PBT({"x": tune.uniform(0, 1)}, perturbation_interval=2, resample_probability=0)
    results = search(
        tmp_path, inherit, {"x": tune.grid_search([0.1, 0.2, 0.3, 0.9])}, scheduler=pbt, max_concurrent=2
    ).fit()
    lines = [json.loads(result.metrics["line"]) for result in results]
    assert max(map(len, lines)) == 8  # not all: a clone of one that was about to end has nothing left to do
    events = [json.loads(line) for line in (tmp_path / "run" / "journal.jsonl").read_text().splitlines()]
    clones = [event for event in events if event["event"] == "trial" and event.get("cloned_from")]
    assert clones
    assert any(0.9 in line and line[-1] != 0.9 for line in lines)


def test_classes_and_their_reuse(tmp_path):
    class Counter(tune.Trainable):
        def setup(self, config, start):
            self.value, self.pid = start, os.getpid()

        def step(self):
            self.value += self.config["by"]
            return {"score": self.value, "pid": self.pid, "done": self.value >= 10}

        def save_checkpoint(self):
            return self.value

        def load_checkpoint(self, checkpoint):
            self.value = checkpoint

        def reset_config(self, config):
            self.value = 0
            return True

    results = search(
        tmp_path, tune.with_parameters(Counter, start=0), {"by": tune.grid_search([1, 2, 5])}, max_concurrent=1
    ).fit()
    assert [result.metrics["score"] for result in results] == [10, 10, 10]
    assert [result.metrics["training_iteration"] for result in results] == [10, 5, 2]
    assert len({result.metrics["pid"] for result in results}) == 1


def test_generators_numbers_and_shared_parameters(tmp_path):
    def steps(config, data):
        for number in range(3):
            yield {"score": float(data[number])}

    results = search(
        tmp_path, tune.with_parameters(steps, data=np.arange(100_000.0)), {}, num_samples=2, name="a"
    ).fit()
    assert [result.metrics["score"] for result in results] == [2.0, 2.0]
    assert search(tmp_path, lambda config: 7, {}, metric=None, name="b").fit().best.metrics["objective"] == 7


def test_the_first_failure_is_shown_at_once_and_the_others_go_on(tmp_path, capsys):
    def picky(config):
        if config["x"] == 1:
            raise ZeroDivisionError("one")
        return {"score": config["x"]}

    results = search(tmp_path, picky, {"x": tune.grid_search([0, 1, 2])}).fit()
    assert results.errors == {"trial-00001": "ZeroDivisionError: one"}
    assert 'raise ZeroDivisionError("one")' in capsys.readouterr().out
    assert results[1].error and 'raise ZeroDivisionError("one")' in results[1].traceback
    with pytest.raises(tune.TuneError, match="No trial has worked") as caught:
        search(tmp_path, lambda config: 1 / 0, {}, num_samples=2, name="b").fit()
    assert len(caught.value.errors) == 2


def test_a_killed_process_is_begun_again_from_the_checkpoint(tmp_path):
    def mortal(config):
        state = tune.get_checkpoint() or 0
        for step in range(state, 6):
            if step == 3 and not os.path.exists(config["mark"]):
                open(config["mark"], "w").close()
                os.kill(os.getpid(), signal.SIGKILL)
            tune.report({"score": step}, checkpoint=step + 1)

    results = search(tmp_path, mortal, {"mark": str(tmp_path / "mark")}, max_failures=1).fit()
    assert not results.errors and results.best.metrics == {"score": 5, "training_iteration": 6}


PROGRAM = textwrap.dedent(
    """
    import os, sys, time
    import shoal
    from shoal_ml import tune

    def work(config):
        state = tune.get_checkpoint() or 0
        for step in range(state, 5):
            time.sleep(0.02)
            tune.report({"score": config["x"] + step}, checkpoint=step + 1)

    space, how = {"x": tune.randint(0, 1000)}, tune.TuneConfig(metric="score", num_samples=20, seed=4)
    shoal.init(num_cpus=2)
    if os.path.exists(sys.argv[1] + "/run"):
        tuner = tune.Tuner.restore(sys.argv[1] + "/run", work, space, how)
    else:
        tuner = tune.Tuner(work, space, how, tune.RunConfig(storage=sys.argv[1], name="run"))
    results = tuner.fit()
    print("done", len(results), sorted(result.metrics["training_iteration"] for result in results)[0])
    """
)


@pytest.mark.parametrize("lines", [5, 40, 90])
def test_a_driver_that_is_killed_at_any_line_of_the_journal(tmp_path, lines):
    journal = tmp_path / "run" / "journal.jsonl"
    command = [sys.executable, "-c", PROGRAM, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as driver:
        while not journal.exists() or journal.read_bytes().count(b"\n") < lines:
            assert driver.poll() is None
        driver.send_signal(signal.SIGKILL)
    ended_before = {
        json.loads(line)["trial"] for line in journal.read_bytes().split(b"\n")[:-1] if b'"TERMINATED"' in line
    }
    second = subprocess.run(command, capture_output=True, text=True, timeout=90)
    assert second.returncode == 0, second.stderr
    assert "done 20 5" in second.stdout
    begun: dict[str, int] = {}
    ended: dict[str, int] = {}
    for line in journal.read_text().splitlines():
        event = json.loads(line)
        if event["event"] == "trial" and event["state"] == "TERMINATED":
            ended[event["trial"]] = ended.get(event["trial"], 0) + 1
        if event["event"] == "report":
            begun[event["trial"]] = begun.get(event["trial"], 0) + 1
    assert len(ended) == 20 and set(ended.values()) == {1}
    assert all(begun[trial_id] == 5 for trial_id in ended_before), "what had ended was not touched"
    assert max(begun.values()) <= 6, "of what ran, one step at most was done again"


def test_a_run_is_stopped_and_steered_from_another_thread(tmp_path):
    gate = tmp_path / "gate"

    def endless(config):
        step = 0
        while True:
            step += 1
            tune.report({"score": config["x"] + step}, checkpoint=step)
            if config["x"] < 100 and step == 3:
                gate.touch()

    tuner = search(tmp_path, endless, {"x": tune.grid_search([1, 2])}, max_concurrent=3)
    done: list = []
    thread = threading.Thread(target=lambda: done.append(tuner.fit()))
    thread.start()
    while not gate.exists():
        assert thread.is_alive()
    tuner.clone("trial-00000", x=100)
    tuner.stop("trial-00001")
    tuner.stop("trial-00000")
    tuner.stop()
    thread.join(60)
    (results,) = done
    assert (
        len(results) == 3 and results[2].config["x"] == 100 and set(results.get_dataframe()["state"]) == {"TERMINATED"}
    )
    with pytest.raises(shoal.errors.ShoalError, match="not running"):
        tuner.stop()


def test_time_is_up(tmp_path):
    def endless(config):
        while True:
            tune.report({"score": 1})

    results = search(tmp_path, endless, {}, num_samples=-1, time_budget_s=1.0).fit()
    assert "time of the run is over" in results[0]._trial.reason


def test_stoppers(tmp_path):
    results = search(tmp_path, curve, {"x": tune.uniform(1, 2)}, stop=[tune.MaximumIteration(4), {"score": 100}]).fit()
    assert results.best.metrics["training_iteration"] == 4
    plateau = tune.TrialPlateau("score", std=0.1, num_results=3, grace_period=3)
    results = search(tmp_path, lambda config: (({"score": 1.0}) for _ in range(50)), {}, stop=plateau, name="b").fit()
    assert results.best.metrics["training_iteration"] == 3


def test_several_objectives_have_a_front(tmp_path):
    results = search(
        tmp_path,
        lambda config: {"a": config["x"], "b": config["y"]},
        {"x": tune.grid_search([0, 1, 2]), "y": tune.grid_search([0, 1, 2])},
        metric=["a", "b"],
        mode=["min", "max"],
    ).fit()
    assert [result.config for result in results.pareto_front()] == [{"x": 0, "y": 2}]


def test_a_run_is_never_overwritten(tmp_path):
    search(tmp_path, parabola, {"x": 1}).fit()
    with pytest.raises(tune.JournalError, match="There is a run in"):
        search(tmp_path, parabola, {"x": 1}).fit()


def test_another_space_is_refused_with_what_has_changed(tmp_path):
    search(tmp_path, parabola, {"x": tune.uniform(0, 1), "y": {"z": 1}}).fit()
    with pytest.raises(OptionError, match=r"`x` was .*; `y.z` is missing; `y.w` is new"):
        tune.Tuner.restore(tmp_path / "run", parabola, {"x": tune.uniform(0, 2), "y": {"w": 1}})
    with pytest.raises(tune.JournalError, match="holds no run"):
        tune.Tuner.restore(tmp_path / "nowhere", parabola, {})


def test_a_metric_that_nobody_reports(tmp_path):
    results = search(tmp_path, parabola, {"x": 1}).fit()
    with pytest.raises(OptionError, match=r"No trial has reported a number for `score`; reported were \['loss'"):
        results.best  # noqa: B018


@pytest.mark.parametrize(
    ("make", "error", "says"),
    [
        (lambda: tune.Tuner(3), TypeError, "A trainable is a function"),
        (lambda: tune.Tuner(int), TypeError, "a subclass of `tune.Trainable`"),
        (lambda: tune.Tuner(lambda: 1), OptionError, "takes the configuration"),
        (lambda: tune.Tuner(parabola, [1]), OptionError, "is a dictionary"),
        (lambda: tune.Tuner(parabola, {}, tune.TuneConfig(mode="best")), OptionError, "`min` or `max`"),
        (lambda: tune.Tuner(parabola, {}, tune.TuneConfig(metric=["a"], mode=["min", "max"])), OptionError, "modes"),
        (lambda: tune.Tuner(parabola, {}, tune.TuneConfig(num_samples=0)), OptionError, "`num_samples`"),
        (lambda: tune.Tuner(parabola, {}, tune.TuneConfig(max_concurrent=0)), OptionError, "`max_concurrent`"),
        (lambda: tune.Tuner(parabola, {}, tune.TuneConfig(time_budget_s=0)), OptionError, "`time_budget_s`"),
        (lambda: tune.Tuner(parabola, {}, tune.TuneConfig(scheduler=tune.ASHA())), OptionError, "`metric`"),
        (lambda: tune.report({}), RuntimeError, "is for a training loop or a trial"),
    ],
)
def test_bad_input(make, error, says):
    with pytest.raises(error, match=says):
        make()


def test_resources_that_the_cluster_has_not(tmp_path):
    with pytest.raises((shoal.errors.InfeasibleError, tune.TuneError)):
        search(tmp_path, tune.with_resources(parabola, {"num_gpus": 1}), {"x": 1}).fit()


def test_returning_something_odd_is_a_failure(tmp_path):
    with pytest.raises(tune.TuneError, match="A trainable returns metrics"):
        search(tmp_path, lambda config: "well", {}).fit()
