"""Short looks at the cluster, for what shows itself: an answer soon, or none."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from shoal.runtime.base_owner import BaseOwner

#: Seconds that a look may take: showing something must not be what somebody waits for.
MOMENT = 0.2


def look(owner: BaseOwner, topic: str, *details: Any, target: str = "", timeout: float = MOMENT) -> Any:
    """Return the answer of the controller, or of the owner or node *target*; not on the event loop's own thread.

    Raises
    ------
    TimeoutError
        None came within *timeout* seconds.
    ClusterLostError, NotInitializedError
        There is no cluster any more.
    ShoalError
        Whoever was asked says why there is no answer.
    """
    from shoal.model.messages import Ask
    from shoal.runtime.controller_link import ANSWER_TIMEOUT
    from shoal.runtime.owner import Owner

    owner.check_usable()
    if not isinstance(owner, Owner):
        return owner.ask(lambda request: Ask(request, topic, details, target))
    make = functools.partial(Ask, topic=topic, details=details, target=target)
    asked = owner.controller.ask(make, max(timeout, ANSWER_TIMEOUT))
    answer = asyncio.run_coroutine_threadsafe(asked, owner.loop)
    try:
        return answer.result(timeout)
    except TimeoutError:
        raise TimeoutError(f"The cluster has not answered within {timeout:g} s.") from None
    finally:
        answer.cancel()


def look_at_each(
    owner: BaseOwner, questions: Mapping[str, tuple[Any, ...]], topic: str, timeout: float
) -> dict[str, Any]:
    """Ask several owners or nodes at once; *questions* has the details for each, by its id.

    Returns the answers of those that have given one within *timeout* seconds.

    Raises
    ------
    ClusterLostError, NotInitializedError
        There is no cluster any more.
    """
    from shoal.model.messages import Ask
    from shoal.runtime.owner import Owner

    owner.check_usable()
    assert isinstance(owner, Owner)

    async def ask_one(target: str, details: tuple[Any, ...]) -> Any:
        return await owner.controller.ask(functools.partial(Ask, topic=topic, details=details, target=target), timeout)

    async def ask() -> list[Any]:
        return await asyncio.gather(*map(ask_one, questions, questions.values()), return_exceptions=True)

    answers = asyncio.run_coroutine_threadsafe(ask(), owner.loop)
    try:
        found = answers.result(timeout + 1.0)
    finally:
        answers.cancel()
    owner.check_usable()
    return {
        target: answer for target, answer in zip(questions, found, strict=True) if not isinstance(answer, BaseException)
    }


__all__ = ["MOMENT", "look", "look_at_each"]
