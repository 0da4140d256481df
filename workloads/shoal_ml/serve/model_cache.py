"""Which of many models are in memory: least recently used goes first, within a budget of bytes or a count. No I/O."""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from typing import Any


@dataclasses.dataclass(slots=True)
class _Held:
    model: Any
    nbytes: int


class ModelCache:
    """Models by id, the least recently used first.

    Parameters
    ----------
    max_models, max_bytes
        Limits, None for none. One model alone is kept whatever its size.
    """

    def __init__(self, max_models: int | None, max_bytes: int | None) -> None:
        self._max_models = max_models
        self._max_bytes = max_bytes
        self._held: OrderedDict[str, _Held] = OrderedDict()
        self._pinned: set[str] = set()
        self.nbytes = 0
        self.hits = self.misses = self.evictions = 0

    def __len__(self) -> int:
        return len(self._held)

    def __contains__(self, model_id: str) -> bool:
        return model_id in self._held

    def ids(self) -> list[str]:
        """Return the ids of those held, the most recently used last."""
        return list(self._held)

    def find(self, model_id: str) -> Any:
        """Return a model, which is then the most recently used; ``LookupError`` if it is not held."""
        held = self._held.get(model_id)
        if held is None:
            self.misses += 1
            raise LookupError(model_id)
        self.hits += 1
        self._held.move_to_end(model_id)
        return held.model

    def add(self, model_id: str, model: Any, nbytes: int) -> list[Any]:
        """Hold a model; returns those that had to go for it."""
        gone = []
        before = self._held.pop(model_id, None)
        if before is not None:
            self.nbytes -= before.nbytes
            gone.append(before.model)
        self._held[model_id] = _Held(model, nbytes)
        self.nbytes += nbytes
        return gone + self._shrink(model_id)

    def pin(self, model_id: str, pinned: bool) -> None:
        """Never let go of a model, or do again; it need not be held yet."""
        (self._pinned.add if pinned else self._pinned.discard)(model_id)

    def clear(self) -> list[Any]:
        """Let go of all; returns them."""
        models = [held.model for held in self._held.values()]
        self._held.clear()
        self.nbytes = 0
        return models

    def _shrink(self, keep: str) -> list[Any]:
        gone = []
        for model_id in [model_id for model_id in self._held if model_id != keep and model_id not in self._pinned]:
            if not self._is_over():
                break
            held = self._held.pop(model_id)
            self.nbytes -= held.nbytes
            self.evictions += 1
            gone.append(held.model)
        return gone

    def _is_over(self) -> bool:
        too_many = self._max_models is not None and len(self._held) > self._max_models
        return too_many or (self._max_bytes is not None and self.nbytes > self._max_bytes)
