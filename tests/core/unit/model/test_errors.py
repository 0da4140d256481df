"""Every error of shoal: what catches it, and what survives a journey."""

from __future__ import annotations

import copy
import pickle

import pytest

import shoal.errors
from shoal.errors import ShoalError

STANDARD: dict[str, type[Exception]] = {
    "ActorDiedError": RuntimeError,
    "ActorUnavailableError": ConnectionError,
    "ClusterLostError": ConnectionError,
    "ConnectError": ConnectionError,
    "ExecutorCrashedError": RuntimeError,
    "GetTimeoutError": TimeoutError,
    "InfeasibleError": ValueError,
    "NameTakenError": ValueError,
    "NestingError": RecursionError,
    "NotInitializedError": RuntimeError,
    "ObjectLostError": LookupError,
    "ObjectStoreFullError": MemoryError,
    "OptionError": ValueError,
    "OutOfMemoryError": MemoryError,
    "OwnerDiedError": RuntimeError,
    "PendingCallsLimitExceeded": BlockingIOError,
    "PlacementGroupError": RuntimeError,
    "RemoteError": RuntimeError,
    "SerializationError": TypeError,
    "ShoalError": Exception,
    "ShoalMissingError": ConnectionError,
    "TaskCancelledError": ShoalError,
    "TaskTimeoutError": TimeoutError,
    "VersionMismatchError": RuntimeError,
}
FACTS = {"task_id": "task-1", "cause": "SIGKILL", "asked": {"num_cpus": 8.0}, "path": "model._lock", "table": "a  b"}


def test_every_public_error_is_listed_here() -> None:
    assert sorted(STANDARD) == sorted(shoal.errors.__all__)


@pytest.mark.parametrize("name", sorted(STANDARD))
def test_an_error_is_caught_by_its_standard_type_and_by_ours(name: str) -> None:
    error_type = getattr(shoal.errors, name)
    with pytest.raises(STANDARD[name]):
        raise error_type("it broke")
    with pytest.raises(ShoalError):
        raise error_type("it broke")


@pytest.mark.parametrize("protocol", [2, 5])
@pytest.mark.parametrize("name", sorted(STANDARD))
def test_an_error_survives_pickling_with_all_it_knows(name: str, protocol: int) -> None:
    error = getattr(shoal.errors, name)("it broke: `x`", **FACTS)
    error.add_note("in train, attempt 1")
    back = pickle.loads(pickle.dumps(error, protocol=protocol))
    assert type(back) is type(error)
    assert str(back) == "it broke: `x`"
    assert back.args == error.args
    assert {fact: getattr(back, fact) for fact in FACTS} == FACTS
    assert back.__notes__ == ["in train, attempt 1"]


@pytest.mark.parametrize("name", sorted(STANDARD))
def test_an_error_can_be_copied(name: str) -> None:
    error = getattr(shoal.errors, name)("it broke", **FACTS)
    back = copy.copy(error)
    assert str(back) == "it broke" and back.cause == "SIGKILL"


def test_facts_of_a_copy_are_its_own() -> None:
    error = ShoalError("it broke", cause="before")
    back = pickle.loads(pickle.dumps(error))
    back.cause = "after"
    assert error.__dict__["cause"] == "before"
