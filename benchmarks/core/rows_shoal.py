"""The rows of the comparison in shoal's dialect. Each function does *count* operations; `serve` times it."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np

import shoal

sys.path.insert(0, str(Path(__file__).parent.parent))
from serve import serve


@shoal.remote
def small_value():
    return b"ok"


@shoal.remote(num_cpus=0)
class Actor:
    def small_value(self):
        return b"ok"

    def small_value_arg(self, x):
        return b"ok"


@shoal.remote(num_cpus=0)
class AsyncActor:
    async def small_value(self):
        return b"ok"


@shoal.remote(num_cpus=0)
class Submitter:
    def tasks(self, count):
        shoal.get([small_value.remote() for _ in range(count)])

    def calls(self, actors, count):
        shoal.get([actors[i % len(actors)].small_value.remote() for i in range(count)])

    def calls_with_ref(self, actors, count):
        x = shoal.put(0)
        shoal.get([actors[i % len(actors)].small_value_arg.remote(x) for i in range(count)])


class Rows:
    def __init__(self):
        shoal.init(num_cpus=2)
        self.ref = shoal.put(0)
        self.actor, self.async_actor = Actor.remote(), AsyncActor.remote()
        self.concurrent = Actor.options(max_concurrency=16).remote()
        self.submitters = [Submitter.remote() for _ in range(4)]
        self.actors = [Actor.remote() for _ in range(2)]
        self.async_actors = [AsyncActor.remote() for _ in range(2)]
        self.many = shoal.put([shoal.put(1) for _ in range(10_000)])
        shoal.get([small_value.remote() for _ in range(1_000)])

    def get_small(self, count):
        for _ in range(count):
            shoal.get(self.ref)

    def put_small(self, count):
        for _ in range(count):
            shoal.put(0)

    def get_with_10k_refs(self, count):
        for _ in range(count):
            shoal.get(self.many)

    def wait_1k_refs(self, count):
        for _ in range(count):
            rest = [small_value.remote() for _ in range(1_000)]
            while rest:
                _, rest = shoal.wait(rest)

    def tasks_sync(self, count):
        for _ in range(count):
            shoal.get(small_value.remote())

    def tasks_async(self, count):
        for _ in range(count // 1_000):
            shoal.get([small_value.remote() for _ in range(1_000)])

    def tasks_from_4_actors(self, count):
        shoal.get([submitter.tasks.remote(count // 4) for submitter in self.submitters])

    def calls_sync(self, count):
        for _ in range(count):
            shoal.get(self.actor.small_value.remote())

    def calls_async(self, count):
        shoal.get([self.actor.small_value.remote() for _ in range(count)])

    def calls_concurrent(self, count):
        shoal.get([self.concurrent.small_value.remote() for _ in range(count)])

    def calls_n_to_n(self, count):
        shoal.get([submitter.calls.remote(self.actors, count // 4) for submitter in self.submitters])

    def calls_n_to_n_with_ref(self, count):
        shoal.get([submitter.calls_with_ref.remote(self.actors, count // 4) for submitter in self.submitters])

    def async_calls_sync(self, count):
        for _ in range(count):
            shoal.get(self.async_actor.small_value.remote())

    def async_calls_async(self, count):
        shoal.get([self.async_actor.small_value.remote() for _ in range(count)])

    def async_calls_n_to_n(self, count):
        shoal.get([submitter.calls.remote(self.async_actors, count // 4) for submitter in self.submitters])

    def new_actor(self, count):
        for _ in range(count):
            shoal.get(Actor.remote().small_value.remote())

    def placement_groups(self, count):
        groups = [shoal.placement_group([{"num_cpus": 0.001}]) for _ in range(count)]
        for group in groups:
            assert group.wait(30)
        for group in groups:
            shoal.remove_placement_group(group)

    # Ray's published single-node limits; for shoal alone.

    def task_with_10k_refs(self, count):
        refs = [shoal.put(i) for i in range(10_000)]
        for _ in range(count):
            shoal.get(small_value_of_many.remote(*refs))

    def task_with_3k_returns(self, count):
        for _ in range(count):
            shoal.get(three_thousand.remote())

    def get_10k_objects(self, count):
        refs = [shoal.put(np.ones(1_000)) for _ in range(10_000)]
        for _ in range(count):
            shoal.get(refs)

    def many_tasks(self, count):
        begin = time.perf_counter()
        refs = [small_value.remote() for _ in range(count)]
        submitted = time.perf_counter() - begin
        shoal.get(refs)
        finished = time.perf_counter() - begin
        del refs  # releases are work too, behind which the next task waits
        shoal.get(small_value.remote())
        return {"submitted": submitted, "finished": finished}

    def memory_per_queued_task(self, count):
        import psutil

        blockers = [shoal.remote(time.sleep).remote(1e6) for _ in range(2)]
        shoal.wait([small_value.options(num_cpus=0).remote()])
        before = psutil.Process().memory_info().rss
        refs = [small_value.remote() for _ in range(count)]
        time.sleep(0.5 + count / 100_000)
        after = psutil.Process().memory_info().rss
        for ref in blockers:
            shoal.cancel(ref, force=True)
        shoal.get(refs)
        del refs
        shoal.get(small_value.remote())  # behind their release
        return {"bytes": (after - before) / count}

    def close(self):
        shoal.shutdown()


@shoal.remote
def small_value_of_many(*values):
    return b"ok"


@shoal.remote(num_returns=3_000)
def three_thousand():
    return [b"ok"] * 3_000


if __name__ == "__main__":
    serve(Rows)
