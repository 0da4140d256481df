"""``serve.predictor``: what predicts batches offline answers single rows online."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from shoal.errors import OptionError
from shoal_ml.serve.batching import batch
from shoal_ml.serve.deployments import Deployment, deployment


class Predictor(Protocol):
    """Predicts a batch: columns by name, each an array of shape ``(rows, …)``."""

    def predict(self, batch: dict[str, Any], /) -> dict[str, Any]:
        """Return columns with as many rows."""


def predictor(
    make: Callable[..., Predictor],
    *,
    max_batch_size: int = 32,
    batch_wait_timeout_s: float = 0.005,
    name: str | None = None,
    **options: Any,
) -> Deployment:
    """Make a deployment of a predictor; ``bind`` takes what *make* is called with.

    A request is one row, a mapping of columns to values (over HTTP: a JSON object), and so is its answer. Rows are
    gathered into batches for ``predict``, which runs on a thread.

    Parameters
    ----------
    make
        The predictor's class, or a function that returns one; called once in each replica.
    max_batch_size, batch_wait_timeout_s
        See :func:`batch`.
    name
        The deployment's name; that of *make* by default.
    **options
        See :class:`DeploymentOptions`; ``max_ongoing_requests`` is twice the batch by default.

    Raises
    ------
    OptionError
        *make* cannot be called.
    """
    if not callable(make):
        raise OptionError(f"`make` must be a class or a function, not {make!r}.", option="make")

    class Served:
        """Rows in, rows out."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            self._predictor = make(*args, **kwargs)

        async def __call__(self, row: dict[str, Any]) -> Any:
            if not isinstance(row, Mapping):
                raise TypeError(f"A request is one row: a mapping of columns to values, not a {type(row).__name__}.")
            return await self._predict(row)

        @batch(
            max_batch_size=max_batch_size,
            batch_wait_timeout_s=batch_wait_timeout_s,
            bucket_fn=lambda row: tuple(sorted(row)),
        )
        async def _predict(self, rows: list[Mapping[str, Any]]) -> list[dict[str, Any]]:
            import asyncio

            import numpy as np

            columns = {key: np.asarray([row[key] for row in rows]) for key in rows[0]}
            predicted = await asyncio.to_thread(self._predictor.predict, columns)
            return [{key: column[index] for key, column in predicted.items()} for index in range(len(rows))]

    label = name or str(getattr(make, "__name__", "Predictor"))
    return deployment(name=label, **{"max_ongoing_requests": 2 * max_batch_size, **options})(Served)
