"""Short looks at the cluster, for what shows itself: an answer soon, or none."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
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
    from shoal.runtime.owner import Owner

    owner.check_usable()
    if not isinstance(owner, Owner):
        return owner.ask(lambda request: Ask(request, topic, details, target))
    asked = owner.controller.ask(lambda request: Ask(request, topic, details, target))
    answer = asyncio.run_coroutine_threadsafe(asked, owner.loop)
    try:
        return answer.result(timeout)
    except TimeoutError:
        raise TimeoutError(f"The cluster has not answered within {timeout:g} s.") from None
    finally:
        answer.cancel()


def look_at_all(
    owner: BaseOwner, topic: str, *details: Any, targets: Iterable[str], timeout: float
) -> tuple[dict[str, Any], list[str]]:
    """Return what each of several owners or nodes answers, and which of them do not, or not within *timeout* seconds.

    They are asked at the same time; not on the event loop's own thread. One that has left meanwhile is in neither.
    """
    from shoal.model.messages import Ask
    from shoal.runtime.owner import Owner
    from shoal.runtime.relay import GONE

    owner.check_usable()
    if not isinstance(owner, Owner):
        return {owner.owner_id: look(owner, topic, *details)}, []
    asker = owner.controller

    async def ask(target: str) -> Any:
        return await asyncio.wait_for(asker.ask(lambda request: Ask(request, topic, details, target)), timeout)

    async def ask_all() -> list[Any]:
        return await asyncio.gather(*map(ask, asked), return_exceptions=True)

    asked = list(targets)
    found = asyncio.run_coroutine_threadsafe(ask_all(), owner.loop).result(timeout + SLACK)
    owner.check_usable()
    answers, silent = {}, []
    for target, answer in zip(asked, found, strict=True):
        if not isinstance(answer, Exception):
            answers[target] = answer
        elif not str(answer).endswith(GONE):
            silent.append(target)
    return answers, silent


__all__ = ["MOMENT", "look", "look_at_all"]
