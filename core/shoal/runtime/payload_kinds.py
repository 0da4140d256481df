"""The kinds of payload; what each holds says :mod:`shoal.runtime.payload`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shoal.model.messages import Payload

INLINE, SEGMENT, ERROR, MANY, END, LOST = "i", "s", "e", "m", "n", "l"

#: Stands where a generator's next value would be.
NO_MORE: Payload = (END,)


def is_error(payload: Payload) -> bool:
    return bool(payload[0] == ERROR)
