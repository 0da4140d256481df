"""Why a group has failed: whose fault it is when several ranks raise, and whether another attempt makes sense."""

from __future__ import annotations

from collections.abc import Mapping

from shoal.errors import (
    ActorDiedError,
    ActorUnavailableError,
    ExecutorCrashedError,
    ObjectLostError,
    OutOfMemoryError,
    OwnerDiedError,
    PlacementGroupError,
)
from shoal_ml.train.errors import HangError, ReportError

#: What a rank is met with when its process, or its node, is gone.
CRASHES = (
    ActorDiedError,
    ActorUnavailableError,
    ExecutorCrashedError,
    ObjectLostError,
    OutOfMemoryError,
    OwnerDiedError,
    PlacementGroupError,
    HangError,
)
#: Names of torch's errors, and parts of its messages, when the other end of a connection is gone.
_ECHO_TYPES = frozenset({"DistBackendError", "DistNetworkError", "DistError", "DistStoreError"})
_ECHO_WORDS = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "gloo", "NCCL", "Socket closed")


def is_crash(error: BaseException) -> bool:
    """Whether a process or node is gone, or stuck, which another attempt may mend."""
    return isinstance(error, CRASHES)


def is_echo(error: BaseException) -> bool:
    """Whether a rank has failed only because another one is gone."""
    if type(error).__name__ in _ECHO_TYPES:
        return True
    return isinstance(error, (RuntimeError, ConnectionError)) and any(word in str(error) for word in _ECHO_WORDS)


def cause(errors: Mapping[int, BaseException], ended: set[int]) -> tuple[int, BaseException]:
    """Return the rank at fault and its error, of all ranks that have failed and those that have ended well."""

    def weight(rank: int) -> tuple[int, int]:
        error = errors[rank]
        return (2 if is_echo(error) else 1 if isinstance(error, ReportError) else 0, rank)

    rank = min(errors, key=weight)
    error = errors[rank]
    if is_echo(error) and ended:
        first = min(ended)
        raised = ReportError(
            f"Rank {rank} waits in a collective for rank {first}, whose loop has ended. All ranks make equally many "
            f"steps: is a data shard shorter than the others? (torch: {str(error).splitlines()[0]})",
            reports=(),
        )
        raised.__cause__ = error
        return rank, raised
    return rank, error
