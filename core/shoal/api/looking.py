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
#: Seconds that several answers may come later than they should, while this process's loop is busy.
SLACK = 10.0


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
) -> tuple[dict[str, Any], list[str]]:
    """Ask several owners or nodes at once; *questions* has the details for each, by its id.

    Returns the answers of those that have given one, and the ids of those that have not within *timeout* seconds, or
    say that they cannot. One that has left meanwhile is in neither. Not on the event loop's own thread.

    Raises
    ------
    ClusterLostError, NotInitializedError
        There is no cluster any more.
    """
    from shoal.model.messages import Ask
    from shoal.runtime.owner import Owner
    from shoal.runtime.relay import GONE

    owner.check_usable()
    if not isinstance(owner, Owner):
        return {target: look(owner, topic, *details) for target, details in questions.items()}, []

    async def ask_one(target: str, details: tuple[Any, ...]) -> Any:
        return await owner.controller.ask(functools.partial(Ask, topic=topic, details=details, target=target), timeout)

    async def ask() -> list[Any]:
        return await asyncio.gather(*map(ask_one, questions, questions.values()), return_exceptions=True)

    asked = asyncio.run_coroutine_threadsafe(ask(), owner.loop)
    try:
        found = asked.result(timeout + SLACK)
    finally:
        asked.cancel()
    owner.check_usable()
    answers, silent = {}, []
    for target, answer in zip(questions, found, strict=True):
        if not isinstance(answer, BaseException):
            answers[target] = answer
        elif not str(answer).endswith(GONE):
            silent.append(target)
    return answers, silent


__all__ = ["MOMENT", "look", "look_at_each"]
