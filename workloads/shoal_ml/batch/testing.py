"""A conformance suite for predictors: run it on your own.

>>> from shoal_ml.batch import FunctionPredictor
>>> import numpy as np
>>> check_predictor(FunctionPredictor(lambda model, batch: batch["x"] * model), 2, {"x": np.arange(8.0)})
"""

from __future__ import annotations

import copy
import itertools
import pickle
from collections.abc import Mapping
from typing import Any

import cloudpickle
import numpy as np

from shoal_ml.batch.predictors.contract import Batch, Predictor, check_predictions


def check_predictor(
    predictor: Predictor, model: Any, batch: Mapping[str, Any], *, rtol: float = 1e-4, atol: float = 1e-6
) -> None:
    """Check that *predictor* keeps the contract of :class:`~shoal_ml.batch.Predictor`.

    Parameters
    ----------
    predictor
        Not loaded yet; it is not changed.
    model
        What it loads.
    batch
        Rows that it can do, 4 or more.
    rtol, atol
        How far a row's prediction may depend on the batch it is in: the order of additions differs.

    Raises
    ------
    AssertionError
        It does not; the message says which rule it breaks.
    """
    columns = {name: np.asarray(column) for name, column in batch.items()}
    rows = len(next(iter(columns.values())))
    assert rows >= 4, "The suite needs a batch of 4 rows or more."
    loaded = pickle.loads(cloudpickle.dumps(predictor))  # it travels before it is loaded
    loaded.load(model)
    before = copy.deepcopy(columns)
    whole = _predict(loaded, columns, rows)
    for name, column in before.items():
        assert _equal(column, columns[name], 0, 0), f"`predict` has changed column `{name}` of its batch."
    again = _predict(loaded, columns, rows)
    _compare(whole, again, "`predict` gives another result for the same batch", 0, 0)
    _check_parts(loaded, columns, whole, rows, rtol, atol)
    loaded.close()


def _check_parts(loaded: Predictor, columns: Batch, whole: Batch, rows: int, rtol: float, atol: float) -> None:
    for name, parts in (("halves", [0, rows // 2, rows]), ("single rows", list(range(rows + 1)))):
        done = [_predict(loaded, _rows(columns, a, b), b - a) for a, b in itertools.pairwise(parts)]
        together = {key: np.concatenate([part[key] for part in done]) for key in whole}
        _compare(whole, together, f"the prediction of a row depends on the others: in {name} it differs", rtol, atol)


def _predict(loaded: Predictor, columns: Batch, rows: int) -> Batch:
    result = check_predictions(loaded.predict(columns), rows, type(loaded).__name__)
    assert result, "`predict` returned no column."
    return {name: array.copy() for name, array in result.items()}


def _rows(columns: Batch, start: int, stop: int) -> Batch:
    return {name: column[start:stop] for name, column in columns.items()}


def _compare(one: Batch, other: Batch, problem: str, rtol: float, atol: float) -> None:
    assert one.keys() == other.keys(), f"{problem}: columns {sorted(one)} and {sorted(other)}."
    for name, array in one.items():
        assert _equal(array, other[name], rtol, atol), f"{problem}, in column `{name}`."


def _equal(one: np.ndarray[Any, Any], other: np.ndarray[Any, Any], rtol: float, atol: float) -> bool:
    if one.shape != other.shape:
        return False
    if one.dtype.kind in "fc":
        return bool(np.allclose(one, other, rtol=rtol, atol=atol, equal_nan=True))
    return bool(one.tolist() == other.tolist())


__all__ = ["check_predictor"]
