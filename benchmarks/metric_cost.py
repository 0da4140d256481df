"""What counting costs: nanoseconds of one call, the best of several rounds: ``python benchmarks/metric_cost.py``."""

from __future__ import annotations

import timeit

import shoal

ROUNDS, CALLS = 7, 100_000

counter = shoal.metrics.Counter("cost_counter")
tagged = shoal.metrics.Counter("cost_tagged", tag_keys=("table", "shard"))
gauge = shoal.metrics.Gauge("cost_gauge")
histogram = shoal.metrics.Histogram("cost_histogram")


def main() -> None:
    for call in (
        "counter.inc()",
        "tagged.inc(tags={'table': 'users', 'shard': '1'})",
        "gauge.set(3.0)",
        "histogram.observe(0.2)",
    ):
        best = min(timeit.repeat(call, globals=globals(), number=CALLS, repeat=ROUNDS)) / CALLS
        print(f"{best * 1e9:7.0f} ns  {call}")


if __name__ == "__main__":
    main()
