"""Many models as Ray's tasks, one each, which is what its guides show."""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import ray

sys.path.insert(0, str(Path(__file__).parent.parent))
from groups import FITS, make_frame
from serve import serve


class Rows:
    def __init__(self):
        self.frame = make_frame()
        ray.init(num_cpus=2, include_dashboard=False, logging_level="ERROR", log_to_driver=False)
        self.fits = {name: ray.remote(fit) for name, fit in FITS.items()}

    def _fit(self, name, count):
        groups = self.frame[self.frame.store < count].groupby("store")
        refs = {key: self.fits[name].remote(rows) for key, rows in groups}
        models = dict(zip(refs, ray.get(list(refs.values())), strict=True))
        assert len(models) == count

    def ridge(self, count):
        self._fit("ridge", count)

    def boosting(self, count):
        self._fit("boosting", count)

    def close(self):
        ray.shutdown()


serve(Rows)
