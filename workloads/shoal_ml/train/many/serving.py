"""``serve_many``: one address for all models of a catalog, of which replicas hold those that are asked for."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from shoal_ml.train.many.catalog import Catalog
from shoal_ml.train.many.errors import MissingModelError
from shoal_ml.train.many.fitted import FittedModels
from shoal_ml.train.many.keys import Key, decode, encode
from shoal_ml.train.many.predicting import predict_rows

if TYPE_CHECKING:
    from shoal_ml.serve import DeploymentHandle

#: Bytes of models in the memory of one replica, as they are pickled.
MAX_BYTES = 1 << 30


def model_id(key: Key) -> str:
    """Return by which name a request asks for the model of a key: text is its own name, other keys are JSON."""
    return key if isinstance(key, str) else encode(key)


def serve_many(
    models: FittedModels,
    *,
    name: str = "models",
    route_prefix: str | None = "/models",
    num_replicas: int = 1,
    max_bytes: int = MAX_BYTES,
    predict: Callable[[Any, Any], Any] | None = None,
    http_options: Mapping[str, Any] | None = None,
    **options: Any,
) -> DeploymentHandle:
    """Serve the best model of every key, each loaded when it is first asked for.

    Over HTTP, rows go as a list of JSON objects by POST to *route_prefix*, with the key in the header
    ``serve_multiplexed_model_id`` (text as it is, other keys as JSON: ``["Oslo", 3]``); the answer is
    ``{"predictions": […]}``. By handle: ``handle.options(multiplexed_model_id=model_id(key)).remote(rows)``. A key that
    has no model is a 404.

    Parameters
    ----------
    models
        Their catalog has to have a directory (``fit_many(store=…)``) that the nodes of the replicas can read.
    name, route_prefix, http_options, options
        As for :func:`shoal_ml.serve.run` and :func:`shoal_ml.serve.deployment`.
    num_replicas
        Processes; each model has a home among them, and spills over to others when that is busy.
    max_bytes
        Bytes of models in the memory of one replica; those that were used last stay.
    predict
        ``predict(model, rows)`` with *rows* a data frame; by default as for :meth:`FittedModels.predict`.

    Returns
    -------
    DeploymentHandle
    """
    from shoal_ml import serve

    @serve.deployment(name=name, num_replicas=num_replicas, **options)
    class Models:
        def __init__(self, store: str, predict: Any, metric: str | None, mode: str) -> None:
            self._models = FittedModels(Catalog(store))
            self._models.metric, self._models.mode = metric, mode
            self._predict = predict

        @serve.multiplexed(max_bytes_per_replica=max_bytes, size_fn=lambda row: len(row[1]))
        def get_model(self, name: str) -> tuple[Any, bytes]:
            pickled = self._models.pickled(_key_of(self._models, name))
            return pickle.loads(pickled), pickled

        async def __call__(self, rows: list[dict[str, Any]]) -> Any:
            import pandas as pd

            try:
                model, _ = await self.get_model(serve.get_multiplexed_model_id())
            except serve.ModelLoadError as error:
                if isinstance(error.__cause__, MissingModelError):
                    return _not_found(str(error.__cause__))
                raise
            frame = pd.DataFrame(rows)
            values = await asyncio.to_thread(predict_rows, self._predict, model, frame, self._models.by)
            return {"predictions": values.tolist()}

    deployed: Any = Models
    application = deployed.bind(str(models.directory), predict, models.metric, models.mode)
    return serve.run(application, name=name, route_prefix=route_prefix, http_options=http_options)


def _key_of(models: FittedModels, name: str) -> Key:
    """Return the key that a request means by *name*."""
    if name in models:
        return name
    try:
        return decode(name)
    except ValueError:
        return name


def _not_found(text: str) -> Any:
    from starlette.responses import JSONResponse

    return JSONResponse({"error": text, "status": 404}, 404)
