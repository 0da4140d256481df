"""``Predictions``: a dataset of what a model said, and the rows that it could not do."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from shoal.errors import OptionError
from shoal_ml.batch.dataset import Dataset
from shoal_ml.batch.dead_letters import DeadLetters
from shoal_ml.batch.execution import RunOptions
from shoal_ml.batch.plan import Plan

if TYPE_CHECKING:
    from shoal_ml.batch.blocks import Block


class Predictions(Dataset):
    """A dataset of predictions, with the rows that failed.

    Of :meth:`~shoal_ml.batch.BatchPredictor.predict` it holds the results; of ``predict_pipelined`` it is a plan that
    predicts while its rows are taken, and what is said here of rows that failed is about the last time.
    """

    def __init__(
        self, plan: Plan, options: RunOptions, letters: DeadLetters, retry: Callable[..., Predictions]
    ) -> None:
        super().__init__(plan, options)
        self._letters = letters
        self._retry = retry

    @property
    def num_failed(self) -> int:
        """Rows that failed."""
        return self._letters.num_failed

    @property
    def dead_letters(self) -> Any:
        """The rows that failed, as a DataFrame.

        It has the columns of the input and ``error`` (type and text), ``traceback``, ``attempt``. With
        ``on_error="skip"`` only what happened is kept, not the input.
        """
        return self._letters.to_pandas()

    def retry_failed(self, **changes: Any) -> Predictions:
        """Predict again on the rows that failed, all columns of their input as they were.

        Parameters
        ----------
        **changes
            ``using=``, another :class:`~shoal_ml.batch.BatchPredictor`, with a model that can do them; and options of
            ``predict`` that are to be other than they were.

        Returns
        -------
        Predictions
            Of these rows. What fails again is in its :attr:`dead_letters`, with a higher ``attempt``.

        Raises
        ------
        OptionError
            Their inputs were not kept: that takes ``on_error="dead_letter"``.
        """
        if self._letters.policy.on_error != "dead_letter":
            raise OptionError(
                'The rows that failed were not kept. Predict with `on_error="dead_letter"` to have them tried again.',
                option="on_error",
            )
        inputs: Block = self._letters.inputs()
        return self._retry(inputs, self._letters.attempt + 1, changes)

    def _with(self, plan: Plan) -> Dataset:  # type: ignore[override]
        """Return what becomes of it as a dataset like others: the rows that failed are those of this one."""
        return Dataset(plan, self._options)


__all__ = ["Predictions"]
