"""The rows of the object store in shoal's dialect; ``rows_ray.py`` has the same, line for line."""

from __future__ import annotations

import os
import time

import numpy as np
from footprint import footprint, settled_footprint, whole_footprint
from serve import serve

import shoal

STORE = int(os.environ.get("BENCH_STORE", 4 << 30))


@shoal.remote(num_cpus=0)
class Reader:
    """Reads refs that travel inside a list, so that its own ``get`` is what is measured."""

    def read(self, box):
        before = footprint()
        begin = time.perf_counter()
        array = shoal.get(box[0])
        seconds = time.perf_counter() - begin
        after_get = footprint()
        total = float(array.sum())
        return {"seconds": seconds, "total": total, "memory": [before, after_get, footprint()]}

    def count(self, box):
        return len(shoal.get(box[0]))


@shoal.remote(num_cpus=0)
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
        shoal.init(num_cpus=2, object_store_memory=STORE)
        self.ref = shoal.put(bytes(1024))
        self.reader = Reader.remote()
        shoal.get(self.reader.count.remote([shoal.put([1])]))
        self.array = self.many = None

    def make_array(self, count):
        self.array = np.ones(100_000_000)  # 800 MB

    def put_800_megabytes(self, count):
        rates = []
        for _ in range(count):
            begin = time.perf_counter()
            ref = shoal.put(self.array)
            rates.append(0.8 / (time.perf_counter() - begin))
            del ref
            time.sleep(0.2)  # until it is free
        return {"rates": rates}

    def read_800_megabytes(self, count):
        reads = []
        for _ in range(count):
            ref = shoal.put(self.array)
            before = whole_footprint()
            facts = shoal.get(self.reader.read.remote([ref]))
            assert facts.pop("total") == len(self.array)
            reads.append(facts | {"whole": [before, whole_footprint()]})
            del ref
            time.sleep(0.2)
        self.array = None
        return {"reads": reads}

    def get_small(self, count):
        for _ in range(count):
            shoal.get(self.ref)

    def put_small(self, count):
        for _ in range(count):
            shoal.put(b"x" * 1024)

    def make_refs(self, count):
        self.many = shoal.put([shoal.put(1) for _ in range(10_000)])

    def refs_in_driver(self, count):
        for _ in range(count):
            shoal.get(self.many)

    def refs_in_actor(self, count):
        for _ in range(count):
            assert shoal.get(self.reader.count.remote([self.many])) == 10_000

    def state_dict(self, count):
        import models

        actors = [Replica.remote() for _ in range(count)]
        shoal.get([actor.prepare.remote() for actor in actors])
        models.warm_up()
        memory = {"idle": settled_footprint()}
        state = models.make("cpu").state_dict()
        memory["model"] = settled_footprint()
        begin = time.perf_counter()
        ref = shoal.put(state)
        put = time.perf_counter() - begin
        shoal.get([actor.load.remote(ref) for actor in actors])
        loaded = time.perf_counter() - begin
        results = shoal.get([actor.run.remote() for actor in actors])
        assert results == [models.run_state(state)] * count
        memory["used"] = settled_footprint()
        del state
        memory["original dropped"] = settled_footprint()
        return {"put": put, "loaded": loaded, "memory": memory, "megabytes": models.MEGABYTES}

    def spill(self, count):
        arrays = np.ones((count, 12_000_000))  # 96 MB each
        self.kept = [shoal.put(arrays[0]) for _ in range(STORE // arrays[0].nbytes)]  # the store is full
        os.sync()
        before = spilled()
        begin = time.perf_counter()
        self.kept += [shoal.put(array) for array in arrays]
        seconds = time.perf_counter() - begin
        return {"spilled": spilled() - before, "stored": seconds}

    def close(self):
        shoal.shutdown()


def spilled():
    """Return the bytes that are on disk now."""
    root = os.environ["SHOAL_SPILL_DIR"]
    return sum(os.path.getsize(os.path.join(at, name)) for at, _, names in os.walk(root) for name in names)


if __name__ == "__main__":
    serve(Rows)
