"""A trial as a session: ``report`` and ``get_checkpoint`` of a trainable are those of a training loop."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from shoal_ml.train.session import Session, current_session


@dataclasses.dataclass(frozen=True, slots=True)
class TrialInfo:
    """The trial that runs here.

    Attributes
    ----------
    trial_id
        Its id.
    config
        What was chosen for it.
    checkpoint
        What it, or the one that it is a clone of, saved last; None if it begins.
    """

    trial_id: str
    config: Mapping[str, Any]
    checkpoint: Any = None


class TrialSession(Session):
    """Hands the reports of a trial to ``send(metrics, checkpoint)``, which returns when they were noted.

    A checkpoint is whatever the trial needs to go on from there: anything that pickles. Large arrays and tensors travel
    through the object store.
    """

    def __init__(self, info: TrialInfo, send: Callable[[dict[str, Any], Any], None]) -> None:
        self.info = info
        self._send = send

    def report(self, metrics: dict[str, Any], checkpoint: Any) -> Mapping[str, Any]:
        self._send(metrics, checkpoint)
        return {}

    def get_checkpoint(self) -> Any:
        return self.info.checkpoint


def get_trial() -> TrialInfo:
    """Return the trial that runs here.

    Raises
    ------
    RuntimeError
        None does.
    """
    session = current_session("get_trial")
    if not isinstance(session, TrialSession):
        raise RuntimeError("`get_trial` was called in a training loop, which is no trial.")
    return session.info
