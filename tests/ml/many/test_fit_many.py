"""``fit_many`` on a real cluster."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LinearRegression, Ridge

import shoal
from shoal_ml.train import CatalogError, FitError, FittedModels, MissingModelError, fit_many


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    with shoal.init(num_cpus=2):
        yield


@pytest.fixture(scope="module")
def sales() -> pd.DataFrame:
    """Rows of 30 stores, in no order: y = store * x + 1."""
    random = np.random.default_rng(0)
    store = random.permutation(np.repeat(np.arange(30), 20))
    x = random.normal(size=600)
    return pd.DataFrame({"store": store, "x": x, "y": store * x + 1}, index=np.arange(600) * 10)


def slope(rows, factor=1.0):
    return factor * np.polyfit(rows["x"], rows["y"], 1)[0]


def test_each_key_gets_a_model_of_its_own_rows(sales):
    models = fit_many(slope, sales, by="store")
    assert len(models) == 30 and list(models) == list(range(30))
    assert [round(models[store], 6) for store in range(30)] == list(range(30))
    assert 7 in models and 99 not in models
    models.close()


def test_rows_come_in_their_order_with_their_columns_and_index(sales):
    def rows_as_they_come(rows, key):
        return key, list(rows.columns), rows.index.tolist()

    models = fit_many(rows_as_they_come, sales, by="store")
    mine = sales[sales["store"] == 4]
    assert models[4] == (4, ["store", "x", "y"], mine.index.tolist())


def test_several_columns_make_a_key(sales):
    frame = sales.assign(side=np.where(sales["x"] > 0, "right", "left"))
    models = fit_many(len, frame, by=["store", "side"])
    assert models[3, "left"] + models[3, "right"] == 20
    assert list(models.table().columns[:2]) == ["store", "side"]


def test_a_mapping_and_keys_alone():
    assert fit_many(sum, {"a": [1, 2], "b": [3]})["a"] == 3
    shared = np.arange(5.0)

    def look_up(key, data):
        return data[key] * 2

    assert fit_many(look_up, [1, 4], data=shared)[4] == 8.0


def test_an_estimator_with_parameters_and_cross_validation(sales):
    models = fit_many(
        Ridge(), sales, by="store", target="y", params={"alpha": [1e-6, 1e3]}, cv=3, metric="score", mode="max"
    )
    assert len(models) == 60
    assert isinstance(models[5], Ridge) and models[5].alpha == 1e-6
    assert models.get(5, alpha=1e3).alpha == 1e3
    board = models.leaderboard()
    assert board["params.alpha"].tolist() == [1e-6, 1e3] and board["wins"].tolist()[0] >= 29
    reference = LinearRegression().fit(sales[sales.store == 5][["x"]], sales[sales.store == 5]["y"])
    assert np.allclose(models[5].coef_, reference.coef_, rtol=1e-4)


def test_several_trainers_each_with_its_own_parameters(sales):
    models = fit_many(
        {"line": Ridge(), "mean": lambda rows, share: (rows["y"].mean() * share, {"score": -1.0})},
        sales,
        by="store",
        target="y",
        cv=2,
        params={"line": {"alpha": [1e-6]}, "mean": {"share": [0.5, 1.0]}},
        metric="score",
    )
    assert len(models) == 90 and isinstance(models[3], Ridge)
    assert models.get(3, trainer="mean", share=0.5) * 2 == pytest.approx(models.get(3, trainer="mean", share=1.0))


def test_what_one_fit_raises_costs_that_fit_only(sales, capsys):
    def picky(rows, key):
        if key == 13:
            raise ZeroDivisionError("unlucky")
        return key

    models = fit_many(picky, sales, by="store", retries=1)
    assert len(models) == 29
    (row,) = models.failed.to_dict("records")
    assert row["store"] == 13 and row["attempts"] == 2 and row["error"] == "ZeroDivisionError: unlucky"
    assert 'raise ZeroDivisionError("unlucky")' in row["traceback"] and "fitting.py" not in row["traceback"]
    assert "13: ZeroDivisionError: unlucky" in capsys.readouterr().err
    with pytest.raises(MissingModelError, match="has failed: ZeroDivisionError"):
        models[13]


def test_a_fit_that_ends_its_process_is_found_and_costs_that_fit_only(sales):
    def deadly(rows, key):
        if key == 5:
            os.kill(os.getpid(), signal.SIGKILL)
        return key

    models = fit_many(deadly, sales, by="store")
    assert len(models) == 29 and models.failed["store"].tolist() == [5]
    assert "ExecutorCrashedError" in models.failed["error"][0]


def test_when_everything_fails_the_call_says_so(sales):
    with pytest.raises(FitError, match=r"None of 30 fits has worked.*KeyError") as caught:
        fit_many(lambda rows: rows["nothing"], sales, by="store")
    assert caught.value.num_failed == 30


def test_too_many_failures_stop_the_run():
    def odd(key):
        if key % 2:
            raise ValueError(key)
        return key

    with pytest.raises(FitError, match="of which 3 were allowed"):
        fit_many(odd, range(1_000), max_failures=3)
    assert len(fit_many(odd, range(10), max_failures=0.6)) == 5


def test_a_second_call_does_what_is_missing(sales, tmp_path, capsys):
    store = str(tmp_path / "models")
    marks = tmp_path / "marks"
    marks.mkdir()

    def marked(rows, key, marks):
        with open(f"{marks}/{key}", "a") as file:
            file.write("x")
        return key

    params = {"marks": [str(marks)]}
    first = fit_many(marked, sales[sales.store < 10], by="store", store=store, params=params)
    first.close()
    changed = sales.copy()
    changed.loc[changed.index[(changed.store == 3).to_numpy().argmax()], "x"] = 0.5
    models = fit_many(marked, changed, by="store", store=store, params=params)
    assert "9 of 30 done" in capsys.readouterr().out
    assert len(models) == 30
    assert {path.name: len(path.read_text()) for path in marks.iterdir()} == {
        str(key): 2 if key == 3 else 1 for key in range(30)
    }
    models.close()
    again = FittedModels.load(store)
    assert again[29] == 29 and "30 models by store" in repr(again)
    again.close()


def test_changed_code_is_fitted_again_and_unchanged_code_is_not(tmp_path, capsys):
    def make(power):
        return lambda rows: sum(rows) ** power

    store = str(tmp_path)
    fit_many({"f": make(1)}, {"a": [3]}, store=store).close()
    fit_many({"f": make(1)}, {"a": [3]}, store=store).close()
    assert "1 of 1 done" in capsys.readouterr().out
    models = fit_many({"f": make(2)}, {"a": [3]}, store=store)
    assert models["a"] == 9 and "because code or data have changed" in capsys.readouterr().out
    models.close()


def test_failed_fits_are_tried_again_by_the_same_call(tmp_path):
    gate = tmp_path / "gate"

    def needs_gate(rows, key, gate):
        if key == "b" and not os.path.exists(gate):
            raise FileNotFoundError(gate)
        return key

    call = {"store": str(tmp_path / "store"), "params": {"gate": [str(gate)]}}
    first = fit_many(needs_gate, {"a": 1, "b": 2}, **call)
    assert first.failed["key"].tolist() == ["b"]
    first.close()
    gate.touch()
    second = fit_many(needs_gate, {"a": 1, "b": 2}, **call)
    assert len(second) == 2 and second.failed.empty
    second.close()


def test_a_driver_that_is_killed_loses_what_was_under_way_only(tmp_path):
    program = textwrap.dedent(
        """
        import sys, time
        import shoal
        from shoal_ml.train import fit_many

        def fit(rows, key, mark):
            with open(f"{mark}/{key}", "a") as file:
                file.write("x")
            time.sleep(0.02)
            return key * 2

        shoal.init(num_cpus=2)
        models = fit_many(fit, {n: n for n in range(200)}, params={"mark": [sys.argv[2]]}, store=sys.argv[1])
        print("done", len(models), sum(models[n] for n in range(200)))
        """
    )
    store, marks = tmp_path / "store", tmp_path / "marks"
    marks.mkdir()
    command = [sys.executable, "-c", program, str(store), str(marks)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as driver:
        while len(list(marks.iterdir())) < 60:
            assert driver.poll() is None
        driver.send_signal(signal.SIGKILL)
    second = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert f"done 200 {200 * 199}" in second.stdout and "of 200 done" in second.stdout
    twice = sum(path.stat().st_size == 2 for path in marks.iterdir())
    assert len(list(marks.iterdir())) == 200 and twice < 60


def test_predictions_with_the_model_of_each_row(sales):
    models = fit_many(Ridge(alpha=1e-9), sales, by="store", target="y")
    shuffled = sales.sample(frac=1, random_state=1)
    predicted = models.predict(shuffled[["store", "x"]])
    assert predicted.index.equals(shuffled.index) and np.allclose(predicted, shuffled["y"], atol=1e-6)
    extra = pd.DataFrame({"store": [2, 77], "x": [1.0, 1.0]}, index=["known", "unknown"])
    with pytest.raises(MissingModelError, match="77"):
        models.predict(extra)
    filled = models.predict(extra, on_missing="null")
    assert filled["known"] == pytest.approx(3.0) and np.isnan(filled["unknown"])
    assert models.predict(extra.iloc[:0]).empty


def test_predictions_by_a_function_and_of_several_columns(sales):
    models = fit_many(slope, sales, by="store")
    both = models.predict(sales, predict=lambda model, rows: np.c_[rows["x"] * model, rows["x"]])
    assert both.shape == (600, 2) and np.allclose(both[0] + 1, sales["y"])
    with pytest.raises(ValueError, match=r"key 0 has predicted 1 values for 20 rows"):
        models.predict(sales, predict=lambda model, rows: [1.0])


def test_a_dask_data_frame_is_grouped_by_dask(sales, cluster):
    dask_dataframe = pytest.importorskip("dask.dataframe")
    models = fit_many(slope, dask_dataframe.from_pandas(sales, npartitions=5, sort=False), by="store")
    assert sorted(models) == list(range(30)) and round(models[17], 6) == 17


def test_best_worst_and_what_is_missing(sales):
    models = fit_many(lambda rows, key: (key, {"error": abs(key - 10)}), sales, by="store", metric="error", mode="min")
    assert models.worst(2)["store"].tolist() == [29, 28]
    assert models.best()["metrics.error"].min() == 0
    models.metric = "nothing"
    with pytest.raises(shoal.errors.OptionError, match=r"one of \['error'\]"):
        models.worst()
    with pytest.raises(MissingModelError, match=r"no model for the key 300\. Did you mean 0|no model for the key 300"):
        models[300]
    assert "<table" in models._repr_html_()


def test_several_models_of_a_key_and_no_metric(sales):
    models = fit_many(slope, sales, by="store", params={"factor": [1.0, 2.0]})
    with pytest.raises(shoal.errors.OptionError, match="no metric says"):
        models[3]
    assert models.get(3, factor=2.0) == pytest.approx(6.0)


BAD = [
    (lambda s: fit_many(slope, s), "Say with `by`"),
    (lambda s: fit_many(slope, s, by="shop"), "`shop`, which is no column"),
    (lambda s: fit_many(slope, s.assign(store=np.where(s.x > 0, s.store, np.nan)), by="store"), "rows have no key"),
    (lambda s: fit_many(slope, {"a": 1}, by="store"), "goes with a data frame"),
    (lambda s: fit_many(slope, ["a", "b", "a"]), "comes twice"),
    (lambda s: fit_many(slope, ["a", None]), "must not be null"),
    (lambda s: fit_many(slope, s, by="store", params={"factr": [1]}), r"no parameter `factr`. Did you mean `factor`"),
    (lambda s: fit_many(slope, s, by="store", params={"factor": 3}), "is a list of values"),
    (lambda s: fit_many(slope, s, by="store", params={"factor": []}), "no set of parameters"),
    (lambda s: fit_many(slope, s, by="store", params={"factor": [object()]}), "kept in the catalog as JSON"),
    (lambda s: fit_many(slope, s, by="store", data=[1]), "no parameter `data`"),
    (lambda s: fit_many(Ridge(), s, by="store"), "Say with `target`"),
    (lambda s: fit_many(Ridge(), s, by="store", target="z"), "`z`, which is no column"),
    (lambda s: fit_many(Ridge(), s, by="store", target="y", params={"alfa": [1]}), "Did you mean `alpha`"),
    (lambda s: fit_many(Ridge(), {"a": 1}, target="y"), "fitted to a data frame"),
    (lambda s: fit_many({}, s, by="store"), "`train` is empty"),
    (lambda s: fit_many(slope, s, by="store", mode="best"), "`max` or `min`"),
    (lambda s: fit_many(slope, s, by="store", retries=-1), "`retries`"),
    (lambda s: fit_many(slope, s, by="store", max_failures=-1), "`max_failures`"),
    (lambda s: fit_many(slope, s, by="store", cv=1), "`cv`"),
    (lambda s: fit_many(slope, s, by="store", num_cpus=-1), "num_cpus"),
]


@pytest.mark.parametrize(("call", "says"), BAD, ids=[says for _, says in BAD])
def test_bad_input_is_refused_before_anything_is_sent(sales, call, says):
    with pytest.raises(shoal.errors.OptionError, match=says):
        call(sales)


def test_more_than_the_cluster_has_is_said_at_once(sales):
    with pytest.raises(shoal.errors.InfeasibleError):
        fit_many(slope, sales, by="store", num_gpus=0.1)


def test_something_that_cannot_be_a_trainer_or_groups(sales):
    with pytest.raises(TypeError, match="`train` is a function"):
        fit_many(3, sales, by="store")
    with pytest.raises(TypeError, match="`groups` is a data frame"):
        fit_many(slope, 3)


def test_a_model_that_does_not_pickle_is_a_failed_fit():
    with pytest.raises(FitError, match="pickle"):
        fit_many(lambda rows: (n for n in rows), {"a": [1]})


def test_none_is_no_model():
    with pytest.raises(FitError, match="has returned None"):
        fit_many(lambda rows: None, {"a": [1]})


def test_a_store_of_other_models_is_refused(sales, tmp_path):
    fit_many(slope, sales, by="store", store=str(tmp_path)).close()
    with pytest.raises(CatalogError, match="Take another directory"):
        fit_many(sum, {"a": [1]}, store=str(tmp_path))
    with pytest.raises(CatalogError, match="holds 30 fits already"):
        fit_many(slope, sales, by="store", store=str(tmp_path), resume=False)


def test_no_groups_are_no_models(sales):
    models = fit_many(slope, sales.iloc[:0], by="store")
    assert len(models) == 0 and models.table().empty
