"""Short looks at the cluster, for what shows itself: an answer soon, or none."""

from __future__ import annotations

import asyncio
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


__all__ = ["MOMENT", "look"]
