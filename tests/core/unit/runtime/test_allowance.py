"""What a process spends on errors is limited."""

from __future__ import annotations

import pytest

from shoal.runtime.allowance import Allowance


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def spend(allowance: Allowance, clock: Clock, seconds: float, extra: float = 0.0) -> None:
    with allowance.spending() as bill:
        bill.add(extra)
        clock.now += seconds


def test_a_burst_then_a_share_of_the_time() -> None:
    clock = Clock()
    allowance = Allowance(burst=2.0, share=0.1, clock=clock)
    spend(allowance, clock, 1.0, extra=0.5)
    assert allowance.is_open()
    spend(allowance, clock, 1.6)
    assert not allowance.is_open()
    clock.now += 20.0
    assert allowance.is_open()


def test_no_more_than_a_burst_is_saved_up() -> None:
    clock = Clock()
    allowance = Allowance(burst=2.0, share=0.1, clock=clock)
    clock.now += 1_000
    assert allowance.is_open()
    spend(allowance, clock, 0.0, extra=2.5)
    assert not allowance.is_open()


def test_an_error_inside_is_paid_for() -> None:
    clock = Clock()
    allowance = Allowance(burst=1.0, share=0.1, clock=clock)
    with pytest.raises(KeyboardInterrupt), allowance.spending():
        clock.now += 2.0
        raise KeyboardInterrupt
    assert not allowance.is_open()
