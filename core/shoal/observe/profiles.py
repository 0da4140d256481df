"""What a sampling profiler has seen: how often each stack was at work. Frames travel once, stacks as their numbers."""

from __future__ import annotations

import collections
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

#: Seconds and samples a second at most.
MAX_SECONDS, MAX_RATE = 60.0, 1_000.0

#: Function, file and line.
Frame = tuple[str, str, int]


class Samples(NamedTuple):
    """Samples of one process.

    Attributes
    ----------
    seconds, rate
        How long it was looked at, and how often a second.
    looks
        How often that was.
    idle
        Threads seen waiting, over all looks.
    frames
        All frames: function, file, line.
    stacks
        Rows of numbers of frames, the outermost first, and how often a thread was at work there.
    how
        Who looked: ``py-spy``, or ``the process itself``.
    """

    seconds: float
    rate: float
    looks: int
    idle: int
    frames: tuple[Frame, ...]
    stacks: tuple[tuple[tuple[int, ...], int], ...]
    how: str

    @property
    def busy(self) -> int:
        """Samples of threads at work."""
        return sum(count for _, count in self.stacks)

    @staticmethod
    def from_wire(row: Any) -> Samples:
        """Read what has travelled as plain tuples or lists."""
        seconds, rate, looks, idle, frames, stacks, how = row
        return Samples(
            float(seconds),
            float(rate),
            int(looks),
            int(idle),
            tuple((str(function), str(file), int(line)) for function, file, line in frames),
            tuple((tuple(numbers), int(count)) for numbers, count in stacks),
            str(how),
        )


def pack_stacks(
    counts: Mapping[tuple[Frame, ...], int],
) -> tuple[tuple[Frame, ...], tuple[tuple[tuple[int, ...], int], ...]]:
    """Return the frames of some stacks, and the stacks as numbers, the most frequent first."""
    numbers: dict[Frame, int] = {}
    stacks = tuple(
        (tuple(numbers.setdefault(frame, len(numbers)) for frame in stack), count)
        for stack, count in sorted(counts.items(), key=lambda row: -row[1])
    )
    return tuple(numbers), stacks


def from_collapsed(text: str) -> dict[tuple[Frame, ...], int]:
    """Read stacks as py-spy's ``raw`` format has them: frames ``function (file:line)`` with ``;`` between, a count."""
    counts: collections.Counter[tuple[Frame, ...]] = collections.Counter()
    for line in text.splitlines():
        names, _, count = line.rpartition(" ")
        if names and count.isdigit():
            counts[tuple(_frame(name) for name in names.split(";"))] += int(count)
    return counts


def _frame(name: str) -> Frame:
    found = re.fullmatch(r"(.*) \((.*):(\d+)\)", name)
    return (found[1], found[2], int(found[3])) if found else (name, "", 0)


class FunctionRow(NamedTuple):
    """A function in a profile: seconds in itself, and in itself and all that it called, over all threads."""

    function: str
    file: str
    #: Where most of its own time went; of a function without any, where it called others.
    line: int
    own: float
    total: float


def functions_of(samples: Samples) -> list[FunctionRow]:
    """Return the functions that were seen, those with most time of their own first."""
    own: collections.Counter[tuple[str, str]] = collections.Counter()
    total: collections.Counter[tuple[str, str]] = collections.Counter()
    lines: dict[tuple[str, str], collections.Counter[tuple[bool, int]]] = collections.defaultdict(collections.Counter)
    for numbers, count in samples.stacks:
        frames = [samples.frames[number] for number in numbers]
        for function, file in {frame[:2] for frame in frames}:
            total[function, file] += count
        for index, (function, file, line) in enumerate(frames):
            is_last = index == len(frames) - 1
            lines[function, file][is_last, line] += count
            own[function, file] += count * is_last
    scale = _seconds_of_one(samples)
    rows = []
    for (function, file), seen in total.items():
        hot = max(lines[function, file].items(), key=lambda row: (row[0][0], row[1]))[0][1]
        rows.append(FunctionRow(function, file, hot, own[function, file] * scale, seen * scale))
    return sorted(rows, key=lambda row: (-row.own, -row.total, row.function))


def _seconds_of_one(samples: Samples) -> float:
    return samples.seconds / samples.looks if samples.looks else 0.0


class Node:
    """A function called from another in a flame graph; ``count`` are samples in it and in what it called."""

    __slots__ = ("children", "count", "file", "function")

    def __init__(self, function: str, file: str) -> None:
        self.function = function
        self.file = file
        self.count = 0
        self.children: dict[tuple[str, str], Node] = {}


def tree_of(samples: Samples) -> Node:
    """Return the root of the flame graph: who called whom, over all stacks."""
    root = Node("all", "")
    for numbers, count in samples.stacks:
        node = root
        node.count += count
        for number in numbers:
            function, file, _ = samples.frames[number]
            node = node.children.setdefault((function, file), Node(function, file))
            node.count += count
    return root


def to_speedscope(samples: Samples, name: str) -> dict[str, Any]:
    """Return the profile as a file of https://www.speedscope.app, which may hold it without its stacks' order."""
    scale = _seconds_of_one(samples)
    weights = [count * scale for _, count in samples.stacks]
    return {
        "$schema": "https://www.speedscope.app/file-format-schema.json",
        "name": name,
        "exporter": "shoal",
        "activeProfileIndex": 0,
        "shared": {
            "frames": [{"name": function, "file": file, "line": line} for function, file, line in samples.frames]
        },
        "profiles": [
            {
                "type": "sampled",
                "name": name,
                "unit": "seconds",
                "startValue": 0,
                "endValue": sum(weights),
                "samples": [list(numbers) for numbers, _ in samples.stacks],
                "weights": weights,
            }
        ],
    }
