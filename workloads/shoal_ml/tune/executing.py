"""Where trials run: an actor that runs one after the other, and hands out their reports as they come.

A trainable calls ``report`` somewhere deep in its own code, while the actor's method is a generator whose values are
awaited one by one. The trainable therefore runs in a coroutine of its own on the same thread (a greenlet): ``report``
switches to the generator, which yields, and is switched back to when the report was noted. So nothing runs ahead of
what was decided, and the end of a trial raises in the middle of the trainable's code, wherever that is.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast

import greenlet

import shoal
from shoal_ml.train.session import report, running
from shoal_ml.tune.session import TrialInfo, TrialSession
from shoal_ml.tune.trainable import Trainable


class TrialRunner:
    """Runs trials. One actor of it runs one trial at a time, and any number one after the other."""

    def __init__(self, trainable: Any, parameters: Mapping[str, Any]) -> None:
        self._trainable = trainable
        self._parameters = {name: shoal.get(value) for name, value in parameters.items()}
        self._instance: Trainable | None = None

    @shoal.method(max_pending=1)
    def run(self, trial_id: str, config: dict[str, Any], checkpoint: Any) -> Iterator[Any]:
        """Run a trial: gives pairs of metrics and whether a checkpoint follows, and checkpoints behind these.

        The last is ``(metrics or None, None)``: what the trainable has returned.
        """
        info = TrialInfo(trial_id, config, checkpoint)
        if isinstance(self._trainable, type) and issubclass(self._trainable, Trainable):
            yield from self._run_class(self._trainable, config, checkpoint)
        else:
            yield from self._run_function(info, config)

    def _run_function(self, info: TrialInfo, config: dict[str, Any]) -> Iterator[Any]:
        generator = greenlet.getcurrent()

        def send(metrics: dict[str, Any], saved: Any) -> None:
            generator.switch((metrics, saved))

        def body() -> Any:
            with running(TrialSession(info, send)):
                return self._call(config)

        trainable = greenlet.greenlet(body)
        try:
            found = trainable.switch()
            while not trainable.dead:
                metrics, saved = found
                yield metrics, saved is not None
                if saved is not None:
                    yield saved
                found = metrics = saved = None
                generator = trainable.parent = greenlet.getcurrent()
                found = trainable.switch()
        finally:
            if not trainable.dead:  # it was stopped: its `finally` clauses run now
                trainable.throw(greenlet.GreenletExit)
        yield self._returned(found), None

    def _call(self, config: dict[str, Any]) -> Any:
        function: Callable[..., Any] = self._trainable
        found = function(config, **self._parameters)
        if inspect.isgenerator(found):
            for metrics in cast("Iterator[Mapping[str, Any]]", found):
                report(metrics)
            return None
        return found

    def _returned(self, value: Any) -> dict[str, Any] | None:
        if value is None or isinstance(value, Mapping):
            return None if value is None else dict(value)
        if isinstance(value, (int, float)):
            return {"objective": value}
        raise TypeError(
            f"A trainable returns metrics as a mapping, one number, or nothing; this one {type(value).__name__}."
        )

    def _run_class(self, kind: type[Trainable], config: dict[str, Any], checkpoint: Any) -> Iterator[Any]:
        instance = self._instance
        if instance is None or not instance.reset_config(config):
            if instance is not None:
                instance.cleanup()
            instance = kind()
            instance.config = config
            instance.setup(config, **self._parameters)
        instance.config = config
        self._instance = instance
        if checkpoint is not None:
            instance.load_checkpoint(checkpoint)
        while True:
            metrics = dict(instance.step())
            saved = instance.save_checkpoint()
            yield metrics, saved is not None
            if saved is not None:
                yield saved
            if metrics.get("done"):
                yield None, None
                return
