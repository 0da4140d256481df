"""Who reads a segment from whom."""

from __future__ import annotations

import math
import random

import pytest

from shoal.machines.sources import MAX_READERS, Drop, Lend, Sources

HOME = "tls://home"


def lent(sources: Sources) -> dict[str, str]:
    """Return who was told to read from whom."""
    return {action.reader: action.source for action in sources.flush() if isinstance(action, Lend)}


@pytest.fixture
def sources() -> Sources:
    return Sources(HOME)


def test_the_home_serves_few_at_a_time(sources: Sources) -> None:
    for number in range(MAX_READERS + 2):
        sources.asked("/s", f"node-{number}", number)
    assert lent(sources) == {f"node-{number}": HOME for number in range(MAX_READERS)}
    sources.done("/s", "node-0", HOME, "/copy")
    assert set(lent(sources).values()) == {HOME, "node-0"}


@pytest.mark.parametrize("count", [1, 10, 100, 1000])
def test_a_broadcast_takes_about_log_n_rounds(count: int) -> None:
    sources = Sources(HOME)
    for number in range(count):
        sources.asked("/s", f"node-{number}", number)
    rounds = served = 0
    while served < count:
        rounds += 1
        reading = lent(sources)
        assert reading
        for reader, source in reading.items():
            sources.done("/s", reader, source, "/copy")
        served += len(reading)
    assert rounds <= math.ceil(math.log(count + 1, MAX_READERS + 1)) + 1


def test_copies_go_with_the_segment(sources: Sources) -> None:
    sources.asked("/s", "node-1", 1)
    sources.asked("/s", "node-2", 2)
    sources.asked("/s", "node-3", 3)
    sources.done("/s", "node-1", HOME, "/copy-1")
    sources.flush()
    sources.asked("/s", "node-4", 4)
    sources.asked("/s", "node-5", 5)
    sources.asked("/s", "node-6", 6)
    sources.flush()
    sources.freed("/s")
    assert sources.flush() == [Lend("node-6", 6, "", ""), Drop("node-1", "/copy-1")]
    sources.done("/s", "node-2", HOME, "/copy-2")  # it was under way
    assert sources.flush() == [Drop("node-2", "/copy-2")]
    assert sources.paths() == []


def test_a_reader_that_ends_makes_room_for_others_and_is_no_source(sources: Sources) -> None:
    for number in range(MAX_READERS + 1):
        sources.asked("/s", f"node-{number}", number)
    sources.flush()
    sources.peer_gone("node-0")
    assert lent(sources) == {f"node-{MAX_READERS}": HOME}
    sources.done("/s", "node-1", HOME, "/copy")
    sources.peer_gone("node-1")
    sources.freed("/s")
    assert sources.flush() == []


def test_a_reader_that_took_no_copy_is_no_source(sources: Sources) -> None:
    sources.asked("/s", "driver", 1)
    sources.done("/s", "driver", HOME, "")
    sources.flush()
    sources.freed("/s")
    assert sources.flush() == []


def test_a_copy_that_has_gone_is_not_lent_again_but_the_home_is(sources: Sources) -> None:
    sources.asked("/s", "node-1", 1)
    sources.done("/s", "node-1", HOME, "/copy")
    sources.unusable("/s", "node-1")
    sources.unusable("/s", HOME)
    sources.flush()
    sources.asked("/s", "node-2", 2)
    assert lent(sources) == {"node-2": HOME}


@pytest.mark.parametrize("seed", range(20))
def test_whatever_ends_everybody_is_served(seed: int) -> None:
    """Readers fail, die and come back at random: nobody waits for ever, no source has more readers than it may."""
    chance = random.Random(seed)
    sources, reading = Sources(HOME), {}
    left = {f"node-{number}" for number in range(40)}
    for number, reader in enumerate(sorted(left)):
        sources.asked("/s", reader, number)
    while left:
        reading.update(lent(sources))
        assert reading, "everybody waits"
        for source in set(reading.values()):
            assert sum(1 for other in reading.values() if other == source) <= MAX_READERS
        reader = chance.choice(sorted(reading))
        source = reading.pop(reader)
        match chance.randrange(4):
            case 0:
                sources.peer_gone(reader)
                left.discard(reader)
            case 1:
                sources.unusable("/s", source)
                sources.done("/s", reader, source, "")
                sources.asked("/s", reader, 0)
            case _:
                sources.done("/s", reader, source, "/copy")
                left.discard(reader)
