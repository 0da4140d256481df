"""What a predictor is: the part of batch inference that knows the model."""

from __future__ import annotations

import abc
from collections.abc import Mapping
from typing import Any

import numpy as np

from shoal_ml.batch.errors import BatchError, RowCountError

#: Rows by column: the first axis of each array is the rows.
Batch = dict[str, np.ndarray[Any, Any]]

#: What the column of a predictor with one nameless output is called.
PREDICTIONS = "predictions"


class Predictor(abc.ABC):
    """Knows how a model predicts on a batch.

    An instance is made by the user, with its options, and travels to every replica by pickle: keep it small. There
    :meth:`load` is called once, then :meth:`predict` for one batch after the other, both in the replica's main thread;
    nothing else runs in the replica meanwhile.

    The contract, which :func:`shoal_ml.batch.testing.check_predictor` checks:

    - ``predict`` returns a mapping of columns, each with one entry for each row of the batch, in the order of the rows;
    - what it returns for a row does not depend on the other rows of the batch: batches are split to find a bad row, and
      halved when memory is short;
    - it neither changes the arrays of the batch nor keeps them;
    - it handles a batch of one row, and may raise for rows that it cannot do.

    Examples
    --------
    >>> class Scaled(Predictor):
    ...     def load(self, model):
    ...         self.weights = model["weights"]
    ...
    ...     def predict(self, batch):
    ...         return {"score": batch["x"] @ self.weights}
    """

    @abc.abstractmethod
    def load(self, model: Any) -> None:
        """Get ready to predict with *model*.

        Parameters
        ----------
        model
            The value that was given to :class:`~shoal_ml.batch.BatchPredictor`. Its arrays and tensors are memory that
            all replicas of the node share; a replica that writes to them changes its own copy only, and pays for it.
        """

    @abc.abstractmethod
    def predict(self, batch: Batch) -> Mapping[str, Any]:
        """Return the predictions for *batch*, by column: arrays, tensors or lists, one entry for each row."""

    def close(self) -> None:  # noqa: B027  (most have nothing to do)
        """Give back what :meth:`load` took. Called once when the replica ends in order; not after a crash."""


def check_predictions(predictions: Any, num_rows: int, who: str) -> Batch:
    """Return what a predictor returned as arrays, or say what is wrong with it.

    Raises
    ------
    BatchError
        It is no mapping of columns.
    RowCountError
        A column has not one entry for each row.
    """
    if not isinstance(predictions, Mapping):
        raise BatchError(
            f"`{who}.predict` returned {type(predictions).__name__}: return a dict of column names to arrays with one "
            "entry for each row.",
            function=who,
        )
    checked = {}
    for name, values in predictions.items():
        array = to_array(values)
        if array.ndim == 0 or len(array) != num_rows:
            got = "one value" if array.ndim == 0 else f"{len(array):,} rows"
            raise RowCountError(
                f"`{who}.predict` returned {got} as `{name}` for a batch of {num_rows:,}: each row has one prediction. "
                "To make more or fewer rows, use `Dataset.map_batches`.",
                given=num_rows,
                returned=1 if array.ndim == 0 else len(array),
            )
        checked[str(name)] = array
    return checked


def to_array(values: Any) -> np.ndarray[Any, Any]:
    """Return an array, tensor or list as an array; rows of different shapes become objects."""
    if hasattr(values, "detach"):  # a tensor, wherever it is
        values = values.detach().cpu().numpy()
    try:
        return np.asarray(values)
    except ValueError:
        array = np.empty(len(values), dtype=object)
        for position, value in enumerate(values):
            array[position] = value
        return array


def name_outputs(outputs: Any, names: tuple[str, ...], who: str) -> Mapping[str, Any]:
    """Give columns to what a model returned: one value, a tuple of values, or a mapping.

    Parameters
    ----------
    names
        The names of the columns, in order; empty for ``predictions``, or ``predictions_0`` and so on for a tuple. Of
        a mapping they are the entries that are wanted, all by default.

    Raises
    ------
    BatchError
        There are not as many outputs as names, or none of that name.
    """
    if isinstance(outputs, Mapping):
        missing = [name for name in names if name not in outputs]
        if missing:
            raise BatchError(
                f"`{who}` returned no output `{missing[0]}`; there are: {', '.join(f'`{name}`' for name in outputs)}.",
                function=who,
            )
        return {name: outputs[name] for name in names or outputs}
    values = tuple(outputs) if isinstance(outputs, tuple) else (outputs,)
    if not names:
        names = (PREDICTIONS,) if len(values) == 1 else tuple(f"{PREDICTIONS}_{n}" for n in range(len(values)))
    if len(names) != len(values):
        raise BatchError(
            f"`{who}` returned {len(values)} outputs, and `outputs` names {len(names)}: name each of them.",
            function=who,
        )
    return dict(zip(names, values, strict=True))


def as_names(names: str | tuple[str, ...] | list[str] | None) -> tuple[str, ...]:
    """Return names given as one string, several, or none, as a tuple."""
    return () if names is None else (names,) if isinstance(names, str) else tuple(names)


__all__ = ["PREDICTIONS", "Batch", "Predictor", "check_predictions"]
