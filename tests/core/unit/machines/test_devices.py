"""Which accelerators a lease may use."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from shoal.machines.devices import DeviceShares


def test_whole_devices_are_given_to_one_lease_alone() -> None:
    shares = DeviceShares(["0", "1", "2", "3"])
    assert shares.take("a", 2) == ("0", "1")
    assert shares.take("b", 2) == ("2", "3")
    assert shares.give_back("a")
    assert shares.take("c", 1) == ("0",)


def test_fractions_are_packed_so_that_others_stay_whole() -> None:
    shares = DeviceShares(["0", "1"])
    assert [shares.take(lease, 0.25) for lease in "abcd"] == [("0",)] * 4
    assert shares.take("e", 1) == ("1",)


def test_who_asks_for_none_sees_none() -> None:
    shares = DeviceShares(["0"])
    assert shares.take("a", 0) == () and not shares.give_back("a")
    assert DeviceShares([]).take("a", 1) == ()
    assert not shares.give_back("never seen")


@given(st.lists(st.sampled_from([0.1, 0.25, 0.5, 1.0, 2.0]), max_size=30), st.randoms())
def test_all_comes_back_and_nothing_is_given_twice(amounts: list[float], random: object) -> None:
    devices = ["0", "1", "2", "3"]
    shares = DeviceShares(devices)
    held: dict[str, tuple[float, tuple[str, ...]]] = {}
    for number, amount in enumerate(amounts):
        if sum(a for a, _ in held.values()) + amount <= len(devices):
            lease = f"lease-{number}"
            held[lease] = amount, shares.take(lease, amount)
            assert len(held[lease][1]) == max(1, round(amount))
            assert len(set(held[lease][1])) == len(held[lease][1])
        if held and random.random() < 0.4:  # type: ignore[attr-defined]
            lease = random.choice(sorted(held))  # type: ignore[attr-defined]
            assert shares.give_back(lease)
            del held[lease]
    for lease in held:
        shares.give_back(lease)
    assert shares.take("all", 4) == tuple(devices)
