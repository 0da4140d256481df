"""The rows of the comparison in Ray's dialect: the same operations as in `rows_shoal.py`, line for line."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_DEDUP_LOGS", "0")

import ray

sys.path.insert(0, str(Path(__file__).parent.parent))
from serve import serve


@ray.remote
def small_value():
    return b"ok"


@ray.remote(num_cpus=0)
class Actor:
    def small_value(self):
        return b"ok"

    def small_value_arg(self, x):
        return b"ok"


@ray.remote(num_cpus=0)
class AsyncActor:
    async def small_value(self):
        return b"ok"


@ray.remote(num_cpus=0)
class Submitter:
    def tasks(self, count):
        ray.get([small_value.remote() for _ in range(count)])

    def calls(self, actors, count):
        ray.get([actors[i % len(actors)].small_value.remote() for i in range(count)])

    def calls_with_ref(self, actors, count):
        x = ray.put(0)
        ray.get([actors[i % len(actors)].small_value_arg.remote(x) for i in range(count)])


class Rows:
    def __init__(self):
        self.directory = tempfile.mkdtemp(prefix="ray-", dir="/tmp")
        ray.init(
            num_cpus=2,
            include_dashboard=False,
            logging_level="ERROR",
            log_to_driver=False,
            object_store_memory=2 << 30,
            _temp_dir=self.directory,
        )
        self.ref = ray.put(0)
        self.actor, self.async_actor = Actor.remote(), AsyncActor.remote()
        self.concurrent = Actor.options(max_concurrency=16).remote()
        self.submitters = [Submitter.remote() for _ in range(4)]
        self.actors = [Actor.remote() for _ in range(2)]
        self.async_actors = [AsyncActor.remote() for _ in range(2)]
        self.many = ray.put([ray.put(1) for _ in range(10_000)])
        ray.get([small_value.remote() for _ in range(1_000)])

    def get_small(self, count):
        for _ in range(count):
            ray.get(self.ref)

    def put_small(self, count):
        for _ in range(count):
            ray.put(0)

    def get_with_10k_refs(self, count):
        for _ in range(count):
            ray.get(self.many)

    def wait_1k_refs(self, count):
        for _ in range(count):
            rest = [small_value.remote() for _ in range(1_000)]
            fetch = True  # as Ray's own benchmark has it: once is enough
            while rest:
                _, rest = ray.wait(rest, fetch_local=fetch)
                fetch = False

    def tasks_sync(self, count):
        for _ in range(count):
            ray.get(small_value.remote())

    def tasks_async(self, count):
        for _ in range(count // 1_000):
            ray.get([small_value.remote() for _ in range(1_000)])

    def tasks_from_4_actors(self, count):
        ray.get([submitter.tasks.remote(count // 4) for submitter in self.submitters])

    def calls_sync(self, count):
        for _ in range(count):
            ray.get(self.actor.small_value.remote())

    def calls_async(self, count):
        ray.get([self.actor.small_value.remote() for _ in range(count)])

    def calls_concurrent(self, count):
        ray.get([self.concurrent.small_value.remote() for _ in range(count)])

    def calls_n_to_n(self, count):
        ray.get([submitter.calls.remote(self.actors, count // 4) for submitter in self.submitters])

    def calls_n_to_n_with_ref(self, count):
        ray.get([submitter.calls_with_ref.remote(self.actors, count // 4) for submitter in self.submitters])

    def async_calls_sync(self, count):
        for _ in range(count):
            ray.get(self.async_actor.small_value.remote())

    def async_calls_async(self, count):
        ray.get([self.async_actor.small_value.remote() for _ in range(count)])

    def async_calls_n_to_n(self, count):
        ray.get([submitter.calls.remote(self.async_actors, count // 4) for submitter in self.submitters])

    def new_actor(self, count):
        for _ in range(count):
            ray.get(Actor.remote().small_value.remote())

    def placement_groups(self, count):
        groups = [ray.util.placement_group([{"CPU": 0.001}]) for _ in range(count)]
        for group in groups:
            assert group.wait(30)
        for group in groups:
            ray.util.remove_placement_group(group)

    def close(self):
        ray.shutdown()


if __name__ == "__main__":
    serve(Rows)
