"""Many models with `fit_many`, its catalog on disk."""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
from groups import FITS, make_frame
from serve import serve

import shoal
from shoal_ml.train import fit_many


class Rows:
    def __init__(self):
        self.frame = make_frame()
        shoal.init(num_cpus=2)

    def _fit(self, name, count):
        with tempfile.TemporaryDirectory() as store:
            models = fit_many(FITS[name], self.frame[self.frame.store < count], by="store", store=store)
            assert len(models) == count
            models.close()

    def ridge(self, count):
        self._fit("ridge", count)

    def boosting(self, count):
        self._fit("boosting", count)

    def many_short_fits(self, count):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        models = fit_many(lambda key: time.sleep(0.001) or key, range(count))
        assert len(models) == count
        models.close()
        return {"grown": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024}

    def close(self):
        shoal.shutdown()


serve(Rows)
