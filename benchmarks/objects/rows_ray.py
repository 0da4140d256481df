"""The rows of the object store in Ray's dialect: the same operations as in ``rows_shoal.py``, line for line."""

from __future__ import annotations

import os
import shutil
import tempfile
import time

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_DEDUP_LOGS", "0")

import numpy as np
import ray
from footprint import footprint, settled_footprint, whole_footprint
from serve import serve

STORE = int(os.environ.get("BENCH_STORE", 4 << 30))


@ray.remote(num_cpus=0)
class Reader:
    """Reads refs that travel inside a list, so that its own ``get`` is what is measured."""

    def read(self, box):
        before = footprint()
        begin = time.perf_counter()
        array = ray.get(box[0])
        seconds = time.perf_counter() - begin
        after_get = footprint()
        total = float(array.sum())
        return {"seconds": seconds, "total": total, "memory": [before, after_get, footprint()]}

    def count(self, box):
        return len(ray.get(box[0]))


@ray.remote(num_cpus=0)
class Replica:
    """Runs a model on the one state dict that everybody has."""

    def prepare(self):
        import models

        self.model = models.make("meta")
        return models.warm_up()

    def load(self, state):
        self.model.load_state_dict(state, assign=True)

    def run(self):
        import models

        return models.run(self.model)


class Rows:
    def __init__(self):
        self.directory = tempfile.mkdtemp(prefix="ray-", dir="/tmp")
        ray.init(
            num_cpus=2,
            include_dashboard=False,
            logging_level="ERROR",
            log_to_driver=False,
            object_store_memory=STORE,
            _temp_dir=self.directory,
        )
        self.ref = ray.put(bytes(1024))
        self.reader = Reader.remote()
        ray.get(self.reader.count.remote([ray.put([1])]))
        self.array = self.many = None

    def make_array(self, count):
        self.array = np.ones(100_000_000)  # 800 MB

    def put_800_megabytes(self, count):
        rates = []
        for _ in range(count):
            begin = time.perf_counter()
            ref = ray.put(self.array)
            rates.append(0.8 / (time.perf_counter() - begin))
            del ref
            time.sleep(0.2)  # until it is free
        return {"rates": rates}

    def read_800_megabytes(self, count):
        reads = []
        for _ in range(count):
            ref = ray.put(self.array)
            before = whole_footprint()
            facts = ray.get(self.reader.read.remote([ref]))
            assert facts.pop("total") == len(self.array)
            reads.append(facts | {"whole": [before, whole_footprint()]})
            del ref
            time.sleep(0.2)
        self.array = None
        return {"reads": reads}

    def get_small(self, count):
        for _ in range(count):
            ray.get(self.ref)

    def put_small(self, count):
        for _ in range(count):
            ray.put(b"x" * 1024)

    def make_refs(self, count):
        self.many = ray.put([ray.put(1) for _ in range(10_000)])

    def refs_in_driver(self, count):
        for _ in range(count):
            ray.get(self.many)

    def refs_in_actor(self, count):
        for _ in range(count):
            assert ray.get(self.reader.count.remote([self.many])) == 10_000

    def state_dict(self, count):
        import models

        actors = [Replica.remote() for _ in range(count)]
        ray.get([actor.prepare.remote() for actor in actors])
        models.warm_up()
        memory = {"idle": settled_footprint()}
        state = models.make("cpu").state_dict()
        memory["model"] = settled_footprint()
        begin = time.perf_counter()
        ref = ray.put(state)
        put = time.perf_counter() - begin
        ray.get([actor.load.remote(ref) for actor in actors])
        loaded = time.perf_counter() - begin
        results = ray.get([actor.run.remote() for actor in actors])
        assert results == [models.run_state(state)] * count
        memory["used"] = settled_footprint()
        del state
        memory["original dropped"] = settled_footprint()
        return {"put": put, "loaded": loaded, "memory": memory, "megabytes": models.MEGABYTES}

    def close(self):
        ray.shutdown()
        shutil.rmtree(self.directory, ignore_errors=True)


if __name__ == "__main__":
    serve(Rows)
