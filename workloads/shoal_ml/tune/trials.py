"""Trials: one configuration each, and what has become of it."""

from __future__ import annotations

import dataclasses
from typing import Any

PENDING, RUNNING, PAUSED, TERMINATED, ERROR = "PENDING", "RUNNING", "PAUSED", "TERMINATED", "ERROR"
#: States in which nothing more comes.
ENDED = (TERMINATED, ERROR)


@dataclasses.dataclass(slots=True)
class Trial:
    """One configuration that is tried.

    Attributes
    ----------
    trial_id
        ``trial-00007``.
    config
        What the trainable gets.
    values
        What was chosen, by the paths of the search space.
    state
        ``PENDING``, ``RUNNING``, ``PAUSED``, ``TERMINATED`` (it has ended or was stopped) or ``ERROR``.
    step
        How often it has reported: ``training_iteration``.
    metrics
        The last report.
    reason
        Why it was stopped; "" if it has ended by itself.
    error, traceback
        What it has failed with.
    num_failures
        How often it has failed; it is begun again as often as allowed.
    cloned_from
        The trial whose checkpoint it has gone on from, if there is one.
    """

    trial_id: str
    config: dict[str, Any]
    values: dict[str, Any]
    state: str = PENDING
    step: int = 0
    metrics: dict[str, Any] = dataclasses.field(default_factory=dict)
    reason: str = ""
    error: str = ""
    traceback: str = ""
    num_failures: int = 0
    cloned_from: str = ""
    #: Where the last checkpoint was made; 0 if there is none.
    checkpoint_step: int = 0

    @property
    def has_ended(self) -> bool:
        return self.state in ENDED
