"""How busy the machine is."""

from __future__ import annotations

import time

from shoal.runtime.cpu_meter import CpuMeter


def work(seconds: float) -> None:
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def test_work_shows_and_one_meter_does_not_disturb_another() -> None:
    meter, other = CpuMeter(), CpuMeter()
    work(0.1)
    assert 0.0 < other.look() <= 1.0
    assert other.look() <= 1.0
    assert 0.0 < meter.look() <= 1.0
