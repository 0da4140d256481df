"""Many models one after the other in one process."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
from groups import FITS, make_frame
from serve import serve


class Rows:
    def __init__(self):
        self.frame = make_frame()

    def _fit(self, name, count):
        models = {key: FITS[name](rows) for key, rows in self.frame[self.frame.store < count].groupby("store")}
        assert len(models) == count

    def ridge(self, count):
        self._fit("ridge", count)

    def boosting(self, count):
        self._fit("boosting", count)

    def close(self):
        pass


serve(Rows)
