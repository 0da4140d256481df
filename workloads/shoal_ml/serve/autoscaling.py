"""How many replicas there should be: a policy without clock and without I/O, that says why."""

from __future__ import annotations

import dataclasses
import math
from collections import deque
from typing import NamedTuple

from shoal_ml.serve.options import AutoscalingOptions

#: Decisions that are remembered.
LOG_LENGTH = 50


class Decision(NamedTuple):
    """A change of the number of replicas, and its reason in words."""

    time: float
    before: int
    after: int
    reason: str


@dataclasses.dataclass(slots=True)
class Autoscaler:
    """Decides for one deployment; :meth:`decide` is called about once a second.

    The load is the mean of the requests that are under way or wait, over ``look_back_period_s``; the wanted number is
    that by ``target_ongoing_requests``. It is acted on once it has been wanted for the delay of its direction, except
    that the first replica is started at once.
    """

    options: AutoscalingOptions
    log: deque[Decision] = dataclasses.field(default_factory=lambda: deque(maxlen=LOG_LENGTH))
    _samples: deque[tuple[float, float]] = dataclasses.field(default_factory=deque)
    #: Since when more, or fewer, have been wanted without a break.
    _more_since: float | None = None
    _fewer_since: float | None = None

    def initial(self) -> int:
        """Return how many to begin with."""
        initial = self.options.initial_replicas
        return self.options.min_replicas if initial is None else initial

    def decide(self, now: float, current: int, requests: float) -> int:
        """Return how many there should be.

        Parameters
        ----------
        now
            Seconds on whatever clock; never less than before.
        current
            How many there should have been so far.
        requests
            Requests under way or waiting, at this moment, at all callers and replicas.
        """
        options = self.options
        bounded = min(max(current, options.min_replicas), options.max_replicas)
        if bounded != current:
            return self._change(now, current, bounded, "the bounds have changed")
        load = self._mean(now, requests)
        if current == 0:
            if requests <= 0:
                return 0
            wanted = self._for_load(requests)
            return self._change(now, 0, max(1, wanted), f"{requests:g} requests wait and there is no replica")
        wanted = self._for_load(load)
        if wanted > current:
            self._fewer_since = None
            return self._wait_or_change(now, current, wanted, load)
        if wanted < current:
            self._more_since = None
            return self._wait_or_change(now, current, wanted, load)
        self._more_since = self._fewer_since = None
        return current

    def _mean(self, now: float, requests: float) -> float:
        self._samples.append((now, requests))
        while self._samples[0][0] < now - self.options.look_back_period_s:
            self._samples.popleft()
        return sum(value for _, value in self._samples) / len(self._samples)

    def _for_load(self, load: float) -> int:
        options = self.options
        wanted = math.ceil(load / options.target_ongoing_requests - 1e-9)
        return min(max(wanted, options.min_replicas), options.max_replicas)

    def _wait_or_change(self, now: float, current: int, wanted: int, load: float) -> int:
        options = self.options
        if wanted > current:
            since = self._more_since = now if self._more_since is None else self._more_since
            delay = options.upscale_delay_s
        else:
            since = self._fewer_since = now if self._fewer_since is None else self._fewer_since
            delay = options.downscale_delay_s
        if now - since < delay:
            return current
        reason = (
            f"{load:.1f} requests on average over {options.look_back_period_s:g} s, "
            f"{options.target_ongoing_requests:g} wanted for each replica, for {now - since:.0f} s"
        )
        return self._change(now, current, wanted, reason)

    def _change(self, now: float, before: int, after: int, reason: str) -> int:
        self._more_since = self._fewer_since = None
        self.log.append(Decision(now, before, after, reason))
        return after
