"""Predict with a pipeline of Hugging Face's ``transformers`` (the extra ``shoal[transformers]``)."""

from __future__ import annotations

from typing import Any

from shoal.errors import OptionError
from shoal_ml.batch.predictors.contract import Batch, Predictor


class PipelinePredictor(Predictor):
    """Predicts with a ``transformers`` pipeline.

    Parameters
    ----------
    task
        Such as ``"text-classification"``, if the model is no pipeline but a model with its tokenizer: then the pipeline
        is made in the replica, of ``{"model": …, "tokenizer": …}``.
    options
        For every call of the pipeline, such as ``top_k=1``.
    """

    def __init__(self, task: str | None = None, **options: Any) -> None:
        self.task = task
        self.options = options

    def load(self, model: Any) -> None:
        if self.task is None:
            self._pipeline = model
            return
        import transformers

        make: Any = transformers.pipeline  # its types list the tasks one by one
        self._pipeline = make(self.task, **model)

    def predict(self, batch: Batch) -> dict[str, Any]:
        if len(batch) != 1:
            raise OptionError(
                f"A pipeline takes one column, and there are {len(batch)}: choose it in `feature_columns`.",
                option="feature_columns",
            )
        (column,) = batch.values()
        rows = list(self._pipeline(column.tolist(), batch_size=len(column), **self.options)) if len(column) else []
        # one answer may be a list of several, or a dict: the first of a list is the best one
        answers = [row[0] if isinstance(row, list) and row else row for row in rows]
        if answers and all(isinstance(answer, dict) for answer in answers):
            return {name: [answer[name] for answer in answers] for name in answers[0]}
        return {"predictions": answers}


__all__ = ["PipelinePredictor"]
