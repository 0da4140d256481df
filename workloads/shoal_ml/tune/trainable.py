"""Trainables as classes: for state that is set up once, steps, and checkpoints."""

from __future__ import annotations

from typing import Any


class Trainable:
    """What is tried, as a class: the run calls :meth:`step` again and again, and saves and loads it as it needs to.

    Call order: ``setup``, ``load_checkpoint`` if the trial goes on from one, then ``step`` and ``save_checkpoint`` by
    turns. A trial ends when its metrics have ``"done": True``, or when it is stopped.
    """

    #: The configuration of the trial.
    config: dict[str, Any]

    def setup(self, config: dict[str, Any], **parameters: Any) -> None:
        """Make it ready. *parameters* are those of :func:`with_parameters`."""

    def step(self) -> dict[str, Any]:
        """Do one step; returns metrics."""
        raise NotImplementedError

    def save_checkpoint(self) -> Any:
        """Return whatever is needed to go on from here: anything that pickles; None for nothing."""
        return None

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Go on from what :meth:`save_checkpoint` has returned."""
        raise NotImplementedError

    def reset_config(self, config: dict[str, Any]) -> bool:
        """Become ready for another trial, and return True; or False, and a new one is set up instead."""
        return False

    def cleanup(self) -> None:
        """Let go of what was set up."""
