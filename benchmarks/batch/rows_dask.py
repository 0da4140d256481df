"""The tasks with Dask: ``map_partitions`` of a dataframe, on two workers with the model in each."""

from __future__ import annotations

import dask.dataframe as dd
import numpy as np
import pandas as pd
import tasks
import torch
from distributed import Client, LocalCluster
from serve import serve


def load(name, model):
    torch.set_num_threads(1)
    tasks.LOADED[name] = model


def on_images(frame):
    images = np.ascontiguousarray(frame.to_numpy().reshape(-1, 1, 8, 8))
    parts = [
        tasks.predict_images(tasks.LOADED["images"], images[part]) for part in _parts(images, tasks.IMAGES_AT_ONCE)
    ]
    return pd.DataFrame(np.concatenate(parts))


def on_sentences(frame):
    texts = frame["text"].tolist()
    parts = [tasks.embed(tasks.LOADED["sentences"], texts[part]) for part in _parts(texts, tasks.SENTENCES_AT_ONCE)]
    return pd.DataFrame(np.concatenate(parts))


def _parts(rows, size):
    return tasks.slices(len(rows), size)


class Rows:
    def __init__(self) -> None:
        self.cluster = LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None)
        self.client = Client(self.cluster)
        self.frames = {}

    def images(self, count):
        if "images" not in self.frames:
            self.client.run(load, "images", tasks.make_net())
            frame = pd.DataFrame(tasks.make_images(count).reshape(count, 64))
            self.frames["images"] = dd.from_pandas(frame, npartitions=32)
            return None
        meta = pd.DataFrame(np.empty((0, 10), np.float32))
        return {"digest": tasks.digest(self.frames["images"].map_partitions(on_images, meta=meta).compute().to_numpy())}

    def sentences(self, count):
        if "sentences" not in self.frames:
            self.client.run(load, "sentences", tasks.make_embedder())
            frame = pd.DataFrame({"text": tasks.make_sentences(count)})
            self.frames["sentences"] = dd.from_pandas(frame, npartitions=max(2, count // 64))
            return None
        meta = pd.DataFrame(np.empty((0, 384), np.float32))
        found = self.frames["sentences"].map_partitions(on_sentences, meta=meta).compute()
        return {"digest": tasks.digest(found.to_numpy())}

    def close(self) -> None:
        self.client.close()
        self.cluster.close()


if __name__ == "__main__":
    serve(Rows)
