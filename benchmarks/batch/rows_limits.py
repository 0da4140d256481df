"""What ``shoal_ml.batch`` is to keep within: time to the first result, memory, the journal's cost."""

from __future__ import annotations

import shutil
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import tasks
from footprint import settled_footprint, whole_footprint
from serve import serve

import shoal
import shoal_ml.batch as batch

#: Seconds between two looks at the memory in use.
LOOK_SECONDS = 0.2


class Rows:
    def __init__(self) -> None:
        self.cluster = shoal.init(num_cpus=2)

    def first_result(self, count):
        """Seconds from the call to the first rows: of a new predictor, and of one with warm replicas."""
        images, found = tasks.make_images(200_000), {"cold": [], "warm": []}
        for _ in range(count):
            with batch.BatchPredictor(tasks.make_net()) as predictor:
                for kind in ("cold", "warm"):
                    begin = time.perf_counter()
                    rows = predictor.predict_pipelined(images, batch_size=tasks.IMAGES_AT_ONCE, concurrency=2)
                    batches = rows.iter_batches()
                    next(batches)
                    found[kind].append(time.perf_counter() - begin)
                    for _ in batches:  # so that the replicas are given back
                        pass
        return found

    def two_replicas(self, _):
        """Megabytes that two replicas of a model of 400 MB add, beyond its one copy and two replicas of a small one."""
        import models

        added = {}
        for name, width in (("small", 64), ("large", models.WIDTH)):
            model = models.make("cpu", width)
            megabytes = sum(parameter.nbytes for parameter in model.parameters()) / 1e6
            predictor = batch.BatchPredictor(model)
            rows = np.ones((64, width), np.float32)
            before = settled_footprint()["pss"]
            predictor.predict(rows, batch_size=8, concurrency=2)
            added[name] = settled_footprint()["pss"] - before
            added[f"{name} model"] = megabytes
            predictor.close()
            del predictor, model
        return {"megabytes": added["large"] - added["small"], **added}

    def large_input(self, gigabytes):
        """Highest memory of all processes while so much passes through two replicas."""
        width, peak = 65_536, [0.0]
        rows = int(gigabytes * 1e9 / (width * 4))
        ended = threading.Event()

        def look():
            while not ended.wait(LOOK_SECONDS):
                peak[0] = max(peak[0], whole_footprint()["pss"])

        watcher = threading.Thread(target=look)
        watcher.start()
        try:
            wide = batch.range(rows).map_batches(
                lambda rows: ({"x": np.full((len(part), width), 1, np.float32)} for part in _parts(rows["id"]))
            )
            with batch.BatchPredictor(None, lambda model, rows: {"y": rows["x"].sum(axis=1)}) as predictor:
                lazy = predictor.predict_pipelined(wide, batch_size=64, concurrency=2)
                total = sum(float(rows["y"].sum()) for rows in lazy.iter_batches())
        finally:
            ended.set()
            watcher.join()
        assert total == rows * width
        return {"megabytes": peak[0]}

    def journal(self, rounds):
        """Seconds of predicting into files, with a journal and without, in turn."""
        images, found = tasks.make_images(200_000), {"with": [], "without": []}
        data = batch.from_numpy({"data": images}).materialize()
        with batch.BatchPredictor(tasks.make_net()) as predictor:
            options = {"batch_size": tasks.IMAGES_AT_ONCE, "concurrency": 2}
            for turn in range(-1, rounds):
                for kind in ("with", "without") if turn % 2 else ("without", "with"):
                    directory = tempfile.mkdtemp(prefix="bench-journal-")
                    begin = time.perf_counter()
                    if kind == "with":
                        predictor.predict(data, resume=Path(directory, "out"), **options)
                    else:
                        predictor.predict_pipelined(data, **options).write_parquet(Path(directory, "out"))
                    if turn >= 0:
                        found[kind].append(time.perf_counter() - begin)
                    shutil.rmtree(directory)
        return found

    def close(self) -> None:
        shoal.shutdown()


def _parts(ids):
    return [ids[start : start + 64] for start in range(0, len(ids), 64)]


if __name__ == "__main__":
    serve(Rows)
