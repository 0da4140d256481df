"""Many models as Dask's tasks, one each."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
from distributed import Client
from groups import FITS, make_frame
from serve import serve


class Rows:
    def __init__(self):
        self.frame = make_frame()
        self.client = Client(n_workers=2, threads_per_worker=1, dashboard_address=None)

    def _fit(self, name, count):
        groups = dict(list(self.frame[self.frame.store < count].groupby("store")))
        models = dict(zip(groups, self.client.gather(self.client.map(FITS[name], list(groups.values()))), strict=True))
        assert len(models) == count

    def ridge(self, count):
        self._fit("ridge", count)

    def boosting(self, count):
        self._fit("boosting", count)

    def close(self):
        self.client.close()


if __name__ == "__main__":
    serve(Rows)
