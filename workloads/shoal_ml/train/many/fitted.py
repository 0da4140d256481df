"""``FittedModels``: what has been fitted, to look at, to compare, and to predict with."""

from __future__ import annotations

import difflib
import html
import os
import pickle
import shutil
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shoal.errors import OptionError
from shoal_ml.train.many.catalog import DONE, FAILED, Catalog, FitRow
from shoal_ml.train.many.errors import MissingModelError
from shoal_ml.train.many.keys import Key, decode, encode, rank
from shoal_ml.train.many.predicting import predict_groups

if TYPE_CHECKING:
    import pandas as pd

#: Rows that are shown where a notebook shows the models.
SHOWN = 10


class FittedModels:
    """Models by key, in a catalog. ``models[key]`` is the model of a key, and the best if it has several.

    Attributes
    ----------
    by
        Columns that make the key; none if keys were given as they are.
    metric, mode
        What makes one model better than another, as :func:`fit_many` was told; both can be set.
    """

    def __init__(self, catalog: Catalog, *, is_temporary: bool = False) -> None:
        """*is_temporary*: the catalog's directory goes with this."""
        self._catalog = catalog
        self._is_temporary = is_temporary
        self._end = weakref.finalize(self, _end, catalog, is_temporary)
        self.by: tuple[str, ...] = tuple(catalog.about("by") or ())
        self.metric: str | None = catalog.about("metric")
        self.mode: str = catalog.about("mode") or "max"

    @classmethod
    def load(cls, store: str | os.PathLike[str]) -> FittedModels:
        """Open the catalog in a directory. Models are pickled: open what you or people you trust have written.

        Raises
        ------
        CatalogError
            There is none.
        """
        return cls(Catalog(store))

    def close(self) -> None:
        """Close the catalog; one that was given no directory goes with this."""
        self._end()

    @property
    def directory(self) -> Path:
        """Where the catalog is."""
        return self._catalog.directory

    # -- one model -------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        """How many models there are."""
        return self._catalog.count(DONE)

    def __iter__(self) -> Iterator[Key]:
        """Give the keys that have a model."""
        return iter(sorted({decode(row.key) for row in self._catalog.rows(DONE)}, key=rank))

    def __contains__(self, key: object) -> bool:
        return any(row.state == DONE for row in self._catalog.rows_of(encode(key)))

    def __getitem__(self, key: Key) -> Any:
        return self.get(key)

    def get(self, key: Key, *, trainer: str | None = None, **params: Any) -> Any:
        """Return the model of a key: the best of those that *trainer* made with these *params*.

        Raises
        ------
        MissingModelError
            There is none; its fit may have failed.
        OptionError
            There are several, and no metric says which is best.
        """
        return pickle.loads(self._catalog.pickled(self._best_row(key, trainer, params).fit_id))

    def pickled(self, key: Key) -> bytes:
        """Return the best model of a key as it was pickled; raises as :meth:`get`."""
        return self._catalog.pickled(self._best_row(key, None, {}).fit_id)

    def _best_row(self, key: Key, trainer: str | None, params: dict[str, Any]) -> FitRow:
        rows = self._catalog.rows_of(encode(key))
        found = [
            row
            for row in rows
            if row.state == DONE
            and trainer in (None, row.trainer)
            and all(row.params.get(name) == value for name, value in params.items())
        ]
        if found:
            return self._best_of(found)
        failed = next((row for row in rows if row.state == FAILED), None)
        if failed is not None:
            raise MissingModelError(f"The fit for the key {key!r} has failed: {failed.error}", key=key)
        names = {str(one): one for one in self} if not rows else {}
        near = difflib.get_close_matches(str(key), names, n=1)
        hint = f" Did you mean {names[near[0]]!r}?" if near else ""
        raise MissingModelError(f"There is no model for the key {key!r}.{hint}", key=key)

    def _best_of(self, rows: list[FitRow]) -> FitRow:
        if len(rows) == 1:
            return rows[0]
        if self.metric is None:
            variants = ", ".join(f"`{row.trainer}` {row.params}" for row in rows[:3])
            raise OptionError(
                f"The key {decode(rows[0].key)!r} has {len(rows)} models ({variants}, …) and no metric says "
                "which is best. Set `models.metric` and `models.mode`, or name one: "
                "`models.get(key, trainer=…, alpha=…)`.",
                option="metric",
            )
        sign = 1 if self.mode == "max" else -1
        measured = [row for row in rows if row.metrics.get(self.metric) == row.metrics.get(self.metric, 0)]
        measured = [row for row in measured if self.metric in row.metrics]  # and is no NaN
        if not measured:
            names = sorted({name for row in rows for name in row.metrics})
            raise OptionError(f"No model has a metric `{self.metric}`; there are {names}.", option="metric")
        return max(measured, key=lambda row: sign * row.metrics[str(self.metric)])

    # -- tables ----------------------------------------------------------------------------------------------------

    def table(self) -> pd.DataFrame:
        """Return all fits: key, trainer, parameters, metrics, state, seconds, bytes, attempts, error."""
        return self._frame(self._catalog.rows())

    @property
    def failed(self) -> pd.DataFrame:
        """The fits that have failed, with their tracebacks. The same call of ``fit_many`` tries them again."""
        return self._frame(self._catalog.rows(FAILED), "traceback")

    def best(self) -> pd.DataFrame:
        """Return the best fit of each key, one row each."""
        by_key: dict[str, list[FitRow]] = {}
        for row in self._catalog.rows(DONE):
            by_key.setdefault(row.key, []).append(row)
        return self._frame([self._best_of(rows) for rows in by_key.values()])

    def worst(self, n: int = 10) -> pd.DataFrame:
        """Return the *n* keys whose best model is worst, the worst first."""
        best = self.best()
        return best.sort_values(self._metric(best), ascending=self.mode == "max", kind="stable").head(n)

    def leaderboard(self) -> pd.DataFrame:
        """Compare trainers and parameters over all keys, the best first.

        Returns
        -------
        pandas.DataFrame
            For each combination: the mean of every metric, how many keys it is best for (``wins``), how many fits
            have worked and failed, and their mean seconds.
        """
        frame = self.table()
        done = frame["state"] == DONE
        columns = ["trainer", *(name for name in frame.columns if name.startswith("params."))]
        metrics = [name for name in frame.columns if name.startswith("metrics.")]
        grouped = frame.assign(fits=done, failed=~done).groupby(columns, dropna=False, sort=False)
        board = grouped.agg({**dict.fromkeys(metrics, "mean"), "fits": "sum", "failed": "sum", "seconds": "mean"})
        if self.metric is not None and f"metrics.{self.metric}" in metrics:
            wins = self.best().groupby(columns, dropna=False).size()
            board.insert(0, "wins", wins.reindex(board.index).fillna(0).astype(int))
            board = board.sort_values(f"metrics.{self.metric}", ascending=self.mode == "min", kind="stable")
        return board.reset_index()

    def _metric(self, frame: pd.DataFrame) -> str:
        column = f"metrics.{self.metric}"
        if self.metric is None or column not in frame.columns:
            names = [name.removeprefix("metrics.") for name in frame.columns if name.startswith("metrics.")]
            raise OptionError(f"Set `models.metric` to one of {names}.", option="metric")
        return column

    def _frame(self, rows: list[FitRow], *more: str) -> pd.DataFrame:
        import pandas as pd

        rows = sorted(rows, key=lambda row: rank(decode(row.key)))  # stable: trainers and parameters stay in order
        keys = [decode(row.key) for row in rows]
        parts = zip(*keys, strict=True) if len(self.by) > 1 and keys else [keys]
        columns: dict[str, Any] = dict(zip(self.by or ("key",), map(list, parts), strict=False))
        columns["trainer"] = [row.trainer for row in rows]
        for kind in ("params", "metrics"):
            for name in dict.fromkeys(name for row in rows for name in getattr(row, kind)):
                columns[f"{kind}.{name}"] = [getattr(row, kind).get(name) for row in rows]
        for name in ("state", "seconds", "nbytes", "attempts", "error", *more):
            columns[name] = [getattr(row, name) for row in rows]
        return pd.DataFrame(columns)

    # -- predictions -----------------------------------------------------------------------------------------------

    def predict(
        self,
        frame: pd.DataFrame,
        *,
        by: str | list[str] | None = None,
        predict: Callable[[Any, Any], Any] | None = None,
        on_missing: str = "raise",
        num_cpus: float = 1,
    ) -> pd.Series[Any] | pd.DataFrame:
        """Predict each row with the model of its key, in the cluster.

        Parameters
        ----------
        frame
            Rows with the columns of the key.
        by
            Columns of the key; by default those that the models were fitted by.
        predict
            ``predict(model, rows)`` returns an array with one item or row for each of *rows*. By default the model's
            ``predict``, on the columns that it was fitted on where it knows them, or the model itself if it can be
            called.
        on_missing
            ``"raise"``, or ``"null"`` for rows whose key has no model.
        num_cpus
            What one prediction needs.

        Returns
        -------
        pandas.Series or DataFrame
            With the index of *frame*; a data frame if predictions have several columns.

        Raises
        ------
        MissingModelError
            A key has no model.
        """
        if on_missing not in ("raise", "null"):
            raise OptionError(f"`on_missing` is `raise` or `null`, not {on_missing!r}.", option="on_missing")
        columns = (by,) if isinstance(by, str) else tuple(by or self.by)
        return predict_groups(
            frame, columns, lambda key: self._pickled(key, on_missing == "null"), predict, num_cpus=num_cpus
        )

    def _pickled(self, key: Key, may_miss: bool) -> bytes | None:
        try:
            return self.pickled(key)
        except MissingModelError:
            if may_miss:
                return None
            raise

    # -- in a notebook ---------------------------------------------------------------------------------------------

    def __repr__(self) -> str:
        num_failed = self._catalog.count(FAILED)
        failed = f", {num_failed:,} fits have failed" if num_failed else ""
        by = f" by {', '.join(self.by)}" if self.by else ""
        where = "" if self._is_temporary else f" in {self._catalog.directory}"
        return f"{len(self):,} models{by}{failed}{where}"

    def _repr_html_(self) -> str:
        board = self.leaderboard()
        more = f"<p>… and {len(board) - SHOWN:,} more</p>" if len(board) > SHOWN else ""
        return f"<p>{html.escape(repr(self))}</p>{board.head(SHOWN).to_html(index=False)}{more}"


def _end(catalog: Catalog, is_temporary: bool) -> None:
    catalog.close()
    if is_temporary:
        shutil.rmtree(catalog.directory, ignore_errors=True)
