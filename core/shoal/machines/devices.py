"""Which accelerators of a node each lease may use.

The controller counts amounts; here they become devices: whole ones are given to one lease alone, fractions share a
device, packed so that others stay whole.
"""

from __future__ import annotations

from collections.abc import Sequence


class DeviceShares:
    """Devices by id, and how much of each is free. Not thread-safe."""

    def __init__(self, device_ids: Sequence[str]) -> None:
        self._free = dict.fromkeys(device_ids, 1.0)
        self._taken: dict[str, tuple[tuple[str, ...], float]] = {}

    def __len__(self) -> int:
        return len(self._free)

    def take(self, lease_id: str, amount: float) -> tuple[str, ...]:
        """Give *amount* devices to a lease and return their ids; of a fraction, one device's.

        Returns to fractions that do not add up can leave no device with enough: the emptiest is shared then.
        """
        if not amount or not self._free:
            return ()
        if amount < 1:
            fitting = [device for device, free in self._free.items() if free >= amount - 1e-6]
            if fitting:
                chosen: tuple[str, ...] = (min(fitting, key=lambda device: self._free[device]),)
            else:
                chosen = (max(self._free, key=lambda device: self._free[device]),)
            share = amount
        else:
            emptiest = sorted(self._free, key=lambda device: -self._free[device])
            chosen, share = tuple(sorted(emptiest[: round(amount)])), 1.0
        for device in chosen:
            self._free[device] = round(self._free[device] - share, 4)
        self._taken[lease_id] = chosen, share
        return chosen

    def give_back(self, lease_id: str) -> bool:
        """A lease has ended; returns whether it had devices."""
        devices, share = self._taken.pop(lease_id, ((), 0.0))
        for device in devices:
            self._free[device] = round(self._free[device] + share, 4)
        return bool(devices)
