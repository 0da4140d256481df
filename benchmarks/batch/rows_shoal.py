"""The tasks with ``shoal_ml.batch``. Replicas stay warm from round to round, as for a user who predicts again."""

from __future__ import annotations

import numpy as np
import tasks
from serve import serve

import shoal
import shoal_ml.batch as batch


class Rows:
    def __init__(self) -> None:
        self.cluster = shoal.init(num_cpus=2)
        self.on_images = batch.BatchPredictor(
            tasks.make_net(), lambda net, rows: {"y": tasks.predict_images(net, rows["data"])}
        )

    def images(self, count):
        images = getattr(self, "_images", None)
        if images is None or len(images) != count:
            self._images = tasks.make_images(count)
            return None
        result = self.on_images.predict(images, batch_size=tasks.IMAGES_AT_ONCE, concurrency=tasks.NUM_REPLICAS)
        return {"digest": tasks.digest(result.to_numpy()["y"])}

    def sentences(self, count):
        if not hasattr(self, "on_sentences"):
            self.on_sentences = batch.BatchPredictor(
                tasks.make_embedder(), lambda model, rows: {"y": tasks.embed(model, rows["text"].tolist())}
            )
            self._sentences = {"text": np.array(tasks.make_sentences(count), dtype=object)}
            return None
        result = self.on_sentences.predict(
            self._sentences, batch_size=tasks.SENTENCES_AT_ONCE, concurrency=tasks.NUM_REPLICAS
        )
        return {"digest": tasks.digest(result.to_numpy()["y"])}

    def close(self) -> None:
        shoal.shutdown()


if __name__ == "__main__":
    serve(Rows)
