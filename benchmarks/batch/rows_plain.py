"""One process that predicts in a loop, with all cores: what there is to reach."""

from __future__ import annotations

import os

import numpy as np
import tasks
import torch
from serve import serve


class Rows:
    def __init__(self) -> None:
        torch.set_num_threads(int(os.environ.get("BENCH_THREADS", "2")))
        self.net = tasks.make_net()

    def images(self, count):
        images = getattr(self, "_images", None)
        if images is None or len(images) != count:
            self._images = tasks.make_images(count)
            return None
        parts = [tasks.predict_images(self.net, images[part]) for part in tasks.slices(count, tasks.IMAGES_AT_ONCE)]
        return {"digest": tasks.digest(np.concatenate(parts))}

    def sentences(self, count):
        if not hasattr(self, "embedder"):
            self.embedder, self._sentences = tasks.make_embedder(), tasks.make_sentences(count)
            return None
        parts = [
            tasks.embed(self.embedder, self._sentences[part]) for part in tasks.slices(count, tasks.SENTENCES_AT_ONCE)
        ]
        return {"digest": tasks.digest(np.concatenate(parts))}

    def close(self) -> None:
        pass


if __name__ == "__main__":
    serve(Rows)
