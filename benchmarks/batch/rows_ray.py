"""The tasks in Ray: actors written by hand, and Ray Data with a pool of actors."""

from __future__ import annotations

import os
import tempfile

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_DEDUP_LOGS", "0")
os.environ.setdefault("RAY_DATA_DISABLE_PROGRESS_BARS", "1")

import numpy as np
import ray
import ray.data
import tasks
import torch
from serve import serve


class OnImages:
    def __init__(self, model):
        torch.set_num_threads(1)
        self.model = model

    def __call__(self, rows):
        return {"y": tasks.predict_images(self.model, rows["data"])}

    def predict(self, images):
        return tasks.predict_images(self.model, images)


class OnSentences(OnImages):
    def __call__(self, rows):
        return {"y": tasks.embed(self.model, rows["text"].tolist())}

    def predict(self, sentences):
        return tasks.embed(self.model, sentences)


class Rows:
    def __init__(self) -> None:
        self.directory = tempfile.mkdtemp(prefix="ray-", dir="/tmp")
        ray.init(
            num_cpus=2,
            include_dashboard=False,
            log_to_driver=False,
            _temp_dir=self.directory,
            object_store_memory=1 << 30,
            runtime_env={"env_vars": {"PYTHONPATH": os.environ["PYTHONPATH"]}},
        )
        ray.data.DataContext.get_current().enable_progress_bars = False
        ray.data.DataContext.get_current().execution_options.preserve_order = True
        self.actors, self.models, self.data = {}, {}, {}

    def images_by_hand(self, count):
        return self._by_hand("images", OnImages, tasks.make_net, tasks.make_images, count, tasks.IMAGES_AT_ONCE)

    def sentences_by_hand(self, count):
        make = tasks.make_sentences
        return self._by_hand("sentences", OnSentences, tasks.make_embedder, make, count, tasks.SENTENCES_AT_ONCE)

    def images(self, count):
        return self._with_data("images", OnImages, tasks.make_net, count, tasks.IMAGES_AT_ONCE)

    def sentences(self, count):
        return self._with_data("sentences", OnSentences, tasks.make_embedder, count, tasks.SENTENCES_AT_ONCE)

    def _by_hand(self, name, actor, make_model, make_data, count, size):
        if name not in self.actors:
            model = ray.put(make_model())
            made = [ray.remote(num_cpus=0)(actor).remote(model) for _ in range(tasks.NUM_REPLICAS)]
            self.actors[name], self.data[name] = made, make_data(count)
            ray.get([one.predict.remote(self.data[name][:size]) for one in made])
            return None
        data, parts, free = self.data[name], tasks.slices(count, size), list(self.actors[name]) * 2
        done, pending = [None] * len(parts), {}
        following = iter(enumerate(parts))
        while True:
            while free and (item := next(following, None)) is not None:
                actor = free.pop()
                pending[actor.predict.remote(data[item[1]])] = item[0], actor
            if not pending:
                break
            ready, _ = ray.wait(list(pending))
            for ref in ready:
                number, actor = pending.pop(ref)
                done[number] = ray.get(ref)
                free.append(actor)
        return {"digest": tasks.digest(np.concatenate(done))}

    def _with_data(self, name, actor, make_model, count, size):
        if name not in self.models:
            self.models[name] = ray.put(make_model())
            if name == "images":
                self.data["images of data"] = tasks.make_images(count)
            else:
                self.data["sentences of data"] = [{"text": text} for text in tasks.make_sentences(count)]
            return None
        data = self.data[f"{name} of data"]
        dataset = ray.data.from_numpy(np.array_split(data, 32)) if name == "images" else ray.data.from_items(data)
        model = self.models[name]
        mapped = dataset.map_batches(
            _Loaded,
            fn_constructor_args=(actor, [model]),
            batch_size=size,
            num_cpus=1,
            compute=ray.data.ActorPoolStrategy(size=tasks.NUM_REPLICAS),
        )
        return {"digest": tasks.digest(np.concatenate([rows["y"] for rows in mapped.iter_batches(batch_size=None)]))}

    def close(self) -> None:
        ray.shutdown()


class _Loaded:
    """Makes an actor's object of the model behind a ref."""

    def __init__(self, kind, box):
        self.inner = kind(ray.get(box[0]))

    def __call__(self, rows):
        return self.inner(rows)


if __name__ == "__main__":
    serve(Rows)
