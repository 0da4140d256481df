"""Many models with joblib's loky, which is what a scikit-learn user takes."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
from groups import FITS, make_frame
from joblib import Parallel, delayed
from serve import serve


class Rows:
    def __init__(self):
        self.frame = make_frame()

    def _fit(self, name, count):
        groups = self.frame[self.frame.store < count].groupby("store")
        models = dict(
            zip(groups.groups, Parallel(n_jobs=2)(delayed(FITS[name])(rows) for _, rows in groups), strict=True)
        )
        assert len(models) == count

    def ridge(self, count):
        self._fit("ridge", count)

    def boosting(self, count):
        self._fit("boosting", count)

    def close(self):
        pass


serve(Rows)
