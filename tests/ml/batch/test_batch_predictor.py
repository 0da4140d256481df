"""``BatchPredictor`` on a real cluster: results, columns, errors, replicas."""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

import shoal
import shoal_ml.batch as batch
from shoal.errors import InfeasibleError, OptionError


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    with shoal.init(num_cpus=2):
        yield


class Cnn(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(1, 4, 3)
        self.head = torch.nn.Linear(4 * 36, 10)

    def forward(self, images):
        return self.head(torch.relu(self.conv(images[:, None])).flatten(1))


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return load_digits().images.astype(np.float32)


@pytest.fixture(scope="module")
def predictor() -> Iterator[batch.BatchPredictor]:
    torch.manual_seed(0)
    with batch.BatchPredictor(Cnn()) as predictor:
        yield predictor


def reference(images: np.ndarray, size: int) -> np.ndarray:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    net = Cnn().eval()
    with torch.inference_mode():
        return np.concatenate(
            [net(torch.from_numpy(images[i : i + size])).numpy() for i in range(0, len(images), size)]
        )


def test_predictions_equal_the_reference_exactly_and_are_in_order(predictor, images):
    result = predictor.predict(images, batch_size=64, concurrency=2)
    assert np.array_equal(result.to_numpy()["predictions"], reference(images, 64))
    assert result.count() == len(images) and result.num_failed == 0


def test_another_predict_uses_the_replicas_that_are_there(predictor, images):
    def pids(model, batch):
        return {"pid": np.full(len(batch["data"]), os.getpid())}

    with batch.BatchPredictor(None, pids) as mine:
        images = np.tile(images, (8, 1, 1))
        first = mine.predict(images, batch_size=64, concurrency=2)
        assert mine.num_idle == 2
        second = mine.predict(images, batch_size=32, concurrency=2, on_error="skip")
        assert mine.num_idle == 2
        found = [set(result.to_numpy()["pid"].tolist()) for result in (first, second)]
        assert len(found[0] | found[1]) <= 2  # one may have been quick enough to do all
    assert mine.num_idle == 0
    with pytest.raises(RuntimeError, match="is closed"):
        mine.predict(images)


def test_replicas_go_after_their_idle_time(images):
    mine = batch.BatchPredictor(None, lambda model, rows: {"y": rows["data"][:, 0]}, idle_seconds=0)
    mine.predict(images[:100], concurrency=1)
    assert mine._timer is not None
    mine._timer.join()
    assert mine.num_idle == 0
    assert mine.predict(images[:100], concurrency=1).count() == 100
    mine.close()


def test_columns_go_to_the_model_and_are_kept(images):
    digits = load_digits()
    frame = pd.DataFrame(digits.data, columns=[f"p{n}" for n in range(64)])
    features = list(frame.columns)
    model = LogisticRegression(max_iter=20, tol=1).fit(frame, digits.target)
    frame["name"] = [f"digit {n}" for n in range(len(frame))]
    with batch.BatchPredictor(model, batch.SklearnPredictor(("predict", "predict_proba"))) as predictor:
        result = predictor.predict(frame, feature_columns=features, keep_columns=["name", "p3"]).to_pandas()
    assert list(result.columns) == ["name", "p3", "predictions", "predict_proba"]
    assert result["name"].tolist() == frame["name"].tolist()
    assert np.array_equal(result["predictions"], model.predict(frame[features]))


def test_columns_that_are_not_there_are_named(predictor, images):
    with pytest.raises(batch.ColumnError, match=r"no column `imgae` for the model.*Did you mean `image`"):
        predictor.predict({"image": images}, feature_columns="imgae")
    with pytest.raises(batch.ColumnError, match="no column `id` to keep"):
        predictor.predict({"image": images}, keep_columns="id")
    with pytest.raises(batch.ColumnError, match="has the name of a column that is kept"):
        predictor.predict({"predictions": images}, keep_columns="predictions")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"batch_size": 0}, "`batch_size` must be a whole number from 1"),
        ({"batch_size": "big"}, '`batch_size` is a number of rows or "auto"'),
        ({"on_error": "skpi"}, "Did you mean `skip`"),
        ({"max_errors": -1}, "`max_errors` is a whole number of rows, or a share"),
        ({"max_errors": 1.5}, "`max_errors` is a whole number of rows, or a share"),
        ({"concurrency": 0}, "`concurrency` must be"),
        ({"if_changed": "x", "resume": "/nowhere"}, "`if_changed` is one of"),
        ({"num_gpu": 1}, "num_gpus"),
    ],
)
def test_options_are_checked_at_once(predictor, images, options, words):
    with pytest.raises(OptionError, match=words):
        predictor.predict(images, **options)


def test_data_of_any_kind(predictor, images):
    expected = reference(images[:50], 50)
    for data in (
        images[:50],
        torch.from_numpy(images[:50]),
        {"x": images[:50]},
        [{"x": image} for image in images[:50]],
    ):
        found = predictor.predict(data, batch_size=64, concurrency=1).to_numpy()["predictions"]
        assert np.allclose(found, expected, atol=1e-5)
    with pytest.raises(TypeError, match="no way to predict on int"):
        predictor.predict(3)
    with pytest.raises(TypeError, match=r"`rows\.dat` does not say what it holds"):
        predictor.predict("rows.dat")


def test_files_are_data_too(predictor, images, tmp_path):
    batch.from_numpy({"image": images}).write_parquet(tmp_path / "scans")
    found = predictor.predict(f"{tmp_path}/scans/*.parquet", batch_size=64, concurrency=2).to_numpy()["predictions"]
    assert np.allclose(found, reference(images, 64), atol=1e-5)


def test_no_rows_are_no_predictions(predictor, images):
    result = predictor.predict(images[:0])
    assert result.count() == 0 and result.take() == [] and len(result.dead_letters) == 0


def test_more_than_the_cluster_has_is_refused_at_once(predictor, images):
    with pytest.raises(InfeasibleError, match="num_gpus"):
        predictor.predict(images, num_gpus=1)


def test_replicas_that_reserve_all_cpus_do_not_starve_those_who_read():
    def model(_, rows):
        return {"threads": np.full(len(rows["id"]), torch.get_num_threads())}

    with batch.BatchPredictor(None, model) as predictor:
        found = predictor.predict(batch.range(5000), num_cpus=1, concurrency=2).to_numpy()["threads"]
        assert len(found) == 5000 and set(found) == {1}
        assert set(predictor.predict(batch.range(50), num_cpus=2).to_numpy()["threads"]) == {2}


def test_a_pipeline_predicts_while_rows_are_taken(predictor, images):
    rows = batch.from_numpy({"image": images}).map_batches(lambda rows: {"image": rows["image"] * 2})
    lazy = predictor.predict_pipelined(rows, batch_size=64, concurrency=2)
    labels = lazy.map_batches(lambda rows: {"label": rows["predictions"].argmax(1)})
    found = np.concatenate([rows["label"] for rows in labels.iter_batches(batch_size=100)])
    assert np.array_equal(found, reference(images * 2, 64).argmax(1))


def broken(model, rows):
    if np.isnan(rows["x"]).any():
        raise ValueError("not a number")
    return {"y": rows["x"] * model}


def some_bad(rows: int, *bad: int) -> dict[str, np.ndarray]:
    x = np.arange(float(rows))
    x[list(bad)] = np.nan
    return {"x": x, "id": np.arange(rows)}


@pytest.fixture(scope="module")
def picky() -> Iterator[batch.BatchPredictor]:
    with batch.BatchPredictor(3.0, broken) as predictor:
        yield predictor


def test_an_error_ends_the_run_unless_told_otherwise(picky):
    with pytest.raises(ValueError, match="not a number"):
        picky.predict(some_bad(500, 77), batch_size=50)


def test_bad_rows_are_dead_letters_and_the_others_are_predicted(picky):
    data = some_bad(3000, 77, 78, 1500, 2999)
    result = picky.predict(data, batch_size=100, keep_columns="id", on_error="dead_letter")
    found = result.to_numpy()
    good = np.setdiff1d(np.arange(3000), [77, 78, 1500, 2999])
    assert np.array_equal(found["id"], good) and np.array_equal(found["y"], good * 3.0)
    letters = result.dead_letters
    assert letters["id"].tolist() == [77, 78, 1500, 2999]
    assert set(letters["error"]) == {"ValueError: not a number"} and set(letters["attempt"]) == {1}
    assert all("in broken" in trace for trace in letters["traceback"])
    again = result.retry_failed()
    assert again.count() == 0 and again.dead_letters["attempt"].tolist() == [2] * 4
    with batch.BatchPredictor(0.0, lambda model, rows: {"y": np.nan_to_num(rows["x"])}) as mended:
        done = again.retry_failed(using=mended)
        assert done.to_numpy()["id"].tolist() == [77, 78, 1500, 2999] and done.num_failed == 0


def test_bad_rows_may_be_skipped_and_are_counted(picky):
    result = picky.predict(some_bad(1000, 5), on_error="skip", keep_columns="id")
    assert result.count() == 999 and result.num_failed == 1
    assert result.dead_letters["error"].tolist() == ["ValueError: not a number"]
    with pytest.raises(OptionError, match='on_error="dead_letter"'):
        result.retry_failed()


@pytest.mark.parametrize("limit", [2, 0.002])
def test_too_many_bad_rows_end_the_run(picky, limit):
    data = some_bad(1500, *range(3))
    with pytest.raises(batch.TooManyErrors, match="`max_errors` allows"):
        picky.predict(data, batch_size=100, on_error="skip", max_errors=limit / 1.01 if limit < 1 else limit)
    assert picky.predict(data, batch_size=100, on_error="skip", max_errors=3).num_failed == 3


def test_a_pipeline_tells_of_bad_rows_each_time_anew(picky):
    lazy = picky.predict_pipelined(some_bad(200, 3), batch_size=50, on_error="dead_letter", keep_columns="id")
    for _ in range(2):
        assert sum(len(rows["y"]) for rows in lazy.iter_batches()) == 199
        assert lazy.dead_letters["id"].tolist() == [3]


class Small(batch.Predictor):
    """Has room for so many rows."""

    def load(self, model):
        self.sizes = []

    def predict(self, rows):
        size = len(rows["data"])
        self.sizes.append(size)
        if size > 100:
            raise torch.OutOfMemoryError("no room")
        return {"largest": np.full(size, max(self.sizes)), "size": np.full(size, size)}


def test_a_batch_that_is_too_large_is_halved_and_that_is_remembered(capfd):
    with batch.BatchPredictor(None, Small()) as predictor:
        found = predictor.predict(np.zeros(4000), batch_size=400, concurrency=1).to_numpy()
        assert len(found["size"]) == 4000 and found["size"].max() == 100
        assert found["largest"].max() == 400
    told = capfd.readouterr()
    lines = [line for line in (told.out + told.err).splitlines() if "Not enough memory" in line]
    assert [line.split("batch of ")[1] for line in lines] == [
        "400 rows: this replica goes on with 200.",
        "200 rows: this replica goes on with 100.",
    ]


def test_a_predictor_that_changes_the_row_count_is_told_so():
    with (
        batch.BatchPredictor(None, lambda model, rows: {"y": rows["data"][1:]}) as predictor,
        pytest.raises(batch.RowCountError, match="returned 99 rows as `y` for a batch of 100"),
    ):
        predictor.predict(np.zeros(200), batch_size=100)


def test_a_model_that_does_not_load_says_why():
    class Missing(batch.Predictor):
        def load(self, model):
            raise FileNotFoundError("weights.bin")

        def predict(self, rows):
            return {}

    with batch.BatchPredictor(None, Missing) as predictor, pytest.raises(FileNotFoundError, match=r"weights\.bin"):
        predictor.predict(np.zeros(10))


def test_a_model_that_is_in_the_cluster_is_used_by_its_ref(images):
    torch.manual_seed(0)
    ref = shoal.put(Cnn())
    with batch.BatchPredictor(ref) as predictor:
        found = predictor.predict(images, batch_size=64).to_numpy()["predictions"]
    assert np.array_equal(found, reference(images, 64))


def test_a_checkpoint_is_a_model(tmp_path, images):
    torch.manual_seed(0)
    torch.save(Cnn().state_dict(), tmp_path / "cnn.pt")
    with batch.BatchPredictor.from_checkpoint(tmp_path / "cnn.pt", Cnn) as predictor:
        found = predictor.predict(images, batch_size=64).to_numpy()["predictions"]
    assert np.array_equal(found, reference(images, 64))
