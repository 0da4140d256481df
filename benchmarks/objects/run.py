"""The object store beside Ray, Dask and what the machine itself does, in one run.

Run ``make bench-objects`` on a quiet machine. In every round each system has a fresh process and a fresh cluster, and
each row is measured for one after the other, the order changing from round to round. Only one is ever at work. The
transfer takes root, as it goes from one network namespace to another.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
from comparing import BUILD, System, header, number, write  # noqa: E402
from networks import on_machine, two_networks  # noqa: E402

Raw = dict[str, Any]
#: Row, operations of shoal and of Ray in one measurement; they follow a tenth of it that only warms up.
COUNTED = {
    "get_small": (50_000, 10_000),
    "put_small": (20_000, 2_000),
    "refs_in_driver": (10, 10),
    "refs_in_actor": (5, 5),
}
#: Bytes that the store of the row about spilling may use, and values of 96 MB put into it when it is full.
SPILL_STORE, SPILL_COUNT = 1 << 30, 24


class Bench:
    """Starts processes and measures."""

    def __init__(self, ray_python: str, rounds: int, errors: Any) -> None:
        self.ray_python = ray_python
        self.rounds = rounds
        self.errors = errors

    @contextlib.contextmanager
    def process(self, name: str, **options: Any) -> Iterator[System]:
        python = self.ray_python if name == "ray" else sys.executable
        system = System(python, HERE / f"rows_{name}.py", self.errors, **options)
        try:
            yield system
        except BaseException:
            system.kill()
            raise
        system.close()

    def turns(self, what: str, names: Sequence[str]) -> Iterator[Sequence[str]]:
        """Yield the order of each round."""
        for turn in range(self.rounds):
            yield names if turn % 2 else names[::-1]
            print(f"{what}: round {turn + 1} of {self.rounds}", file=sys.stderr, flush=True)

    def memory(self) -> Raw:
        """Rows of one machine: large and small values, and many refs."""
        raw: Raw = {"put first": {}, "put": {}, "read": {}, "counted": {row: {} for row in COUNTED}}

        def add(into: Raw, name: str, values: list[Any]) -> None:
            into.setdefault(name, []).extend(values)

        for names in self.turns("memory", ("shoal", "ray", "machine")):
            with contextlib.ExitStack() as stack:
                systems = {name: stack.enter_context(self.process(name)) for name in names}
                ours = [name for name in names if name != "machine"]
                for name in names:
                    facts(systems[name].run("make_array", 1))
                for name in names:
                    row = "copy_to_fresh_shared" if name == "machine" else "put_800_megabytes"
                    add(raw["put first"], name, facts(systems[name].run(row, 1))["rates"])
                for name in ours:
                    facts(systems[name].run("put_800_megabytes", 2))  # so that there are warm files
                for name in names:
                    row = "copy_800_megabytes" if name == "machine" else "put_800_megabytes"
                    add(raw["put"], name, facts(systems[name].run(row, 4))["rates"])
                add(raw["put"], "shared", facts(systems["machine"].run("copy_to_shared", 4))["rates"])
                for name in ours:
                    add(raw["read"], name, facts(systems[name].run("read_800_megabytes", 3))["reads"])
                for row, counts in COUNTED.items():
                    for name in ours:
                        count = counts[name == "ray"]
                        if row == "refs_in_driver":
                            facts(systems[name].run("make_refs", 1))
                        facts(systems[name].run(row, max(1, count // 10)))
                        add(raw["counted"][row], name, [count / facts(systems[name].run(row, count))["seconds"]])
        return raw

    def models(self) -> Raw:
        """Two actors for the time, four for the memory, and one state dict."""
        raw: Raw = {"2": {"shoal": [], "ray": []}, "4": {"shoal": [], "ray": []}}
        for names in self.turns("models", ("shoal", "ray")):
            for count, found in raw.items():
                for name in names:
                    with self.process(name) as system:
                        found[name].append(facts(system.run("state_dict", int(count))))
        return raw

    def transfer(self) -> Raw:
        """Between two machines."""
        rows = ("stream", "stream_whole", "transfer_shoal", "transfer_dask")
        raw: Raw = {row: [] for row in rows}
        with two_networks() as networks:
            environment = {
                "BENCH_NEAR": networks.near_address,
                "BENCH_FAR": networks.far_address,
                "BENCH_FAR_NAMESPACE": networks.far,
            }
            within = functools.partial(on_machine, networks.near)
            with self.process("transfer", within=within, environment=environment) as system:
                for row in rows:
                    facts(system.run(row, 1))
                for order in self.turns("transfer", rows):
                    for row in order:
                        raw[row] += facts(system.run(row, 2))["rates"]
        return raw

    def spill(self) -> Raw:
        """To disk, when the store is full."""
        raw: Raw = {"shoal": [], "machine": []}
        for names in self.turns("spill", ("shoal", "machine")):
            for name in names:
                with tempfile.TemporaryDirectory(prefix="bench-") as directory:
                    environment = {"SHOAL_SPILL_DIR": directory, "BENCH_STORE": str(SPILL_STORE)}
                    with self.process(name, environment=environment) as system:
                        os.sync()
                        begin = time.perf_counter()
                        found = facts(system.run("spill" if name == "shoal" else "write_files", SPILL_COUNT))
                        took = time.perf_counter() - begin
                        os.sync()
                        found["synced"] = found["stored"] + time.perf_counter() - begin - took
                        raw[name].append(found)
                os.sync()
        return raw


def facts(answer: Raw) -> Raw:
    if "error" in answer:
        raise RuntimeError(answer["error"])
    return answer


# -- what is written ---------------------------------------------------------------------------------------------


def spread(values: Sequence[float], unit: str) -> str:
    return f"{number(statistics.median(values))}{unit} ({number(min(values))}-{number(max(values))})"


def row(title: str, ours: Sequence[float], peer: str, theirs: Sequence[float], bar: float | None, unit: str) -> str:
    ratio = statistics.median(ours) / statistics.median(theirs)
    verdict = "| | |" if bar is None else f"| {bar:g}x | {'yes' if ratio >= bar else 'no'} |"
    return f"| {title} | {spread(ours, unit)} | {peer} | {spread(theirs, unit)} | {ratio:.2f}x {verdict}"


def limit(title: str, ours: Sequence[float], theirs: Sequence[float] | None, bar: float | None, unit: str) -> str:
    ray = spread(theirs, unit) if theirs else ""
    verdict = "| |" if bar is None else f"{bar:g}{unit} | {'yes' if statistics.median(ours) <= bar else 'no'} |"
    return f"| {title} | {spread(ours, unit)} | {ray} | {verdict}"


def rate_lines(raw: Raw) -> list[str]:
    lines = ["| row | shoal | compared with | its rate | ratio | bar | reached |", "|---|---|---|---|---|---|---|"]
    if memory := raw.get("memory"):
        put, first, unit = memory["put"], memory["put first"], " GB/s"
        lines += [
            row("put of 800 MB, once there are warm files", put["shoal"], "memcpy", put["machine"], 0.9, unit),
            row("", put["shoal"], "memcpy into shared memory", put["shared"], None, unit),
            row("", put["shoal"], "Ray", put["ray"], None, unit),
            row("first put of 800 MB", first["shoal"], "memcpy into fresh shared memory", first["machine"], None, unit),
            row("", first["shoal"], "Ray", first["ray"], None, unit),
        ]
        titles = {
            "get_small": ("get of 1 KB", 10),
            "put_small": ("put of 1 KB", 10),
            "refs_in_driver": ("get of an object that holds 10,000 refs, by who made them", 1),
            "refs_in_actor": ("the same in an actor, with its call", 1),
        }
        for name, (title, bar) in titles.items():
            found = memory["counted"][name]
            lines.append(row(title, found["shoal"], "Ray", found["ray"], bar, "/s"))
    if transfer := raw.get("transfer"):
        ours = transfer["transfer_shoal"]
        lines += [
            row("transfer of 400 MB", ours, "one comm, in pieces of 4 MiB", transfer["stream"], 0.8, " GB/s"),
            row("", ours, "one comm, in one message", transfer["stream_whole"], 0.8, " GB/s"),
            row("", ours, "Dask's transfer", transfer["transfer_dask"], None, " GB/s"),
        ]
    if spill := raw.get("spill"):
        ours, theirs = spill["shoal"], spill["machine"]
        for title, what, bar in (
            ("spilling, until all is on the disk", "synced", 0.7),
            ("the same, as far as the system has taken it", "stored", None),
        ):
            rates = [[one["spilled"] / 1e9 / one[what] for one in found] for found in (ours, theirs)]
            lines.append(row(title, rates[0], "plain writes of the same files", rates[1], bar, " GB/s"))
    return lines


def limit_lines(raw: Raw) -> list[str]:
    lines = ["| limits | shoal | Ray | at most | reached |", "|---|---|---|---|---|"]
    if memory := raw.get("memory"):
        reads = memory["read"]

        def milliseconds(name: str) -> list[float]:
            return [1e3 * read["seconds"] for read in reads[name]]

        def grown(name: str, where: str, kind: str, until: int) -> list[float]:
            return [read[where][until][kind] - read[where][0][kind] for read in reads[name]]

        lines.append(limit("get of 800 MB in an actor", milliseconds("shoal"), milliseconds("ray"), 1, " ms"))
        for title, where, kind, until, bar in (
            ("all processes after every page was read: memory added (PSS)", "whole", "pss", 1, 1),
            ("the actor after the get: PSS added", "memory", "pss", 1, 1),
            ("the actor after every page was read: memory of its own added", "memory", "anonymous", 2, 1),
            ("the same: PSS added, which is its part of what it shares with the writer", "memory", "pss", 2, None),
        ):
            values = [grown(name, where, kind, until) for name in ("shoal", "ray")]
            lines.append(limit(title, values[0], values[1], bar, " MB"))
    if models := raw.get("models"):
        megabytes = models["4"]["shoal"][0]["megabytes"]

        def beyond(name: str, when: str, since: str, copies: int) -> list[float]:
            return [
                (run["memory"][when]["pss"] - run["memory"][since]["pss"] - copies * megabytes) / 4
                for run in models["4"][name]
            ]

        def total(name: str, when: str) -> list[float]:
            return [run["memory"][when]["pss"] - run["memory"]["idle"]["pss"] for run in models["4"][name]]

        def seconds(name: str, what: str) -> list[float]:
            return [run[what] for run in models["2"][name]]

        for title, function, arguments, bar, unit in (
            ("each of four actors adds, beyond the driver's and the one copy", beyond, ("used", "model", 1), 10, " MB"),
            ("the same, once the driver has let go of its own", beyond, ("original dropped", "idle", 1), 10, " MB"),
            ("the same, a quarter of the driver's own counted as added", beyond, ("used", "idle", 1), None, " MB"),
            ("in all, beyond idle, the driver's own kept", total, ("used",), None, " MB"),
            ("in all, beyond idle, the driver's own dropped", total, ("original dropped",), None, " MB"),
            ("put, and load in two actors", seconds, ("loaded",), 0.3, " s"),
            ("of this the put", seconds, ("put",), None, " s"),
        ):
            values = [function(name, *arguments) for name in ("shoal", "ray")]
            lines.append(limit(title, values[0], values[1], bar, unit))
    return lines


NOTES = """
How it is measured. *memcpy*: one thread, the whole array in one call of the C library, into memory of the process
that is there already. *Warm files*: put, free, put. *Memory*: PSS of the driver and all that it has started, so that
shared memory counts once. *State dict*: 403 MB, random weights; actors call `load_state_dict(assign=True)` and run
the model; torch is imported before. *Transfer*: between two network namespaces on this machine, TLS, each with a
shared memory of its own; timed from a task's submission to its result, for shoal and Dask alike. *Spilling*: 24
values of 96 MB are put into a store of 1 GiB that is full; what has gone to disk, by the time that takes, beside as
many files from as much memory; to the end of `sync`, and without.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ray-python", required=True, help="interpreter of the environment that has Ray")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--parts", default="memory,models,transfer,spill", help="which, with commas")
    parser.add_argument("--output", type=Path, help="write the table there (.md) and the raw numbers beside it (.json)")
    options = parser.parse_args()
    raw: Raw = {"header": header(options.ray_python)}
    missing = []
    BUILD.mkdir(exist_ok=True)
    with open(BUILD / "bench-errors.log", "w") as errors:
        bench = Bench(options.ray_python, options.rounds, errors)
        for part in options.parts.split(","):
            try:
                raw[part] = getattr(bench, part)()
            except (OSError, RuntimeError) as error:
                missing.append(f"Not available: {part} ({error}).")
    raw["load after"] = os.getloadavg()[0]
    lines = [raw["header"], "", *rate_lines(raw), "", *limit_lines(raw), *NOTES.rstrip().splitlines(), *missing]
    write(options.output, "make bench-objects", lines, raw)


if __name__ == "__main__":
    main()
