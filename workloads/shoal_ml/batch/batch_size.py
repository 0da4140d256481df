"""How many rows a model is given at once: found by trying, and lowered when memory is short.

Sans-IO: :class:`BatchSize` is told what batches took and says how large the next one is. A replica keeps one as long as
it lives, so that what one piece of work has found out holds for the next.
"""

from __future__ import annotations

import sys

#: Where the search begins.
FIRST_SIZE = 16
#: Where it ends: beyond, a batch costs memory and time to the first result, and gains nothing.
LARGEST_SIZE = 4096
#: How much faster a larger batch has to be to be worth its memory.
WORTH = 1.05
#: Batches of one size that are timed: the best of them counts, as others use the processor too.
TIMED = 2
#: Larger sizes in a row that may be no better before the search ends: rates are noisy, and not quite monotonous.
PATIENCE = 2

#: What libraries say in a ``RuntimeError`` when they get no memory.
_WORDS = ("out of memory", "can't allocate memory", "failed to allocate memory", "bad allocation", "std::bad_alloc")


class BatchSize:
    """The size of a replica's batches.

    Parameters
    ----------
    size
        Rows, 1 or more; or ``"auto"``: from :data:`FIRST_SIZE` it doubles while rows per second rise.

    Attributes
    ----------
    size
        Rows of the next batch.
    ceiling
        What memory allows, as far as is known.
    settled
        Whether the search is over.
    """

    def __init__(self, size: int | str) -> None:
        self.settled = size != "auto"
        self.size = FIRST_SIZE if size == "auto" else int(size)
        self.ceiling = LARGEST_SIZE if size == "auto" else self.size
        self._rates: list[float] = []
        self._best_rate = 0.0
        self._best_size = self.size
        self._worse = 0
        self._warm = False

    def worked(self, num_rows: int, seconds: float) -> None:
        """A batch was predicted. Shorter ones than asked for, such as the last of a block, say nothing."""
        if self.settled or num_rows != self.size:
            return
        if not self._warm:  # a first call pays for what is made once
            self._warm = True
            return
        self._rates.append(num_rows / max(seconds, 1e-9))
        if len(self._rates) == TIMED:
            self._judge(max(self._rates))

    def too_large(self, num_rows: int) -> bool:
        """A batch of this size found no memory; the next ones have half as many rows, for good.

        Returns whether that helps: False for a batch of one row.
        """
        if num_rows <= 1:
            return False
        self.settled = True
        self.ceiling = self.size = min(self.size, max(1, num_rows // 2))
        return True

    def _judge(self, rate: float) -> None:
        self._rates = []
        if rate >= WORTH * self._best_rate:
            self._best_rate, self._best_size, self._worse = rate, self.size, 0
        else:
            self._worse += 1
        if self._worse == PATIENCE or 2 * self.size > self.ceiling:
            self.size, self.settled = self._best_size, True
        else:
            self.size *= 2


def is_out_of_memory(error: BaseException) -> bool:
    """Whether *error* says that there was not enough memory: Python's, torch's on any device, or another library's."""
    if isinstance(error, MemoryError):
        return True
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error).lower() for word in _WORDS)


__all__ = ["BatchSize", "is_out_of_memory"]
