"""The data that all systems fit: 500 groups of 200 rows, and how each fits one of them."""

from __future__ import annotations

import numpy as np
import pandas as pd
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import Ridge

GROUPS, ROWS, FEATURES = 500, 200, 8


def make_frame() -> pd.DataFrame:
    """Return the rows of all groups, in no order."""
    random = np.random.default_rng(0)
    count = GROUPS * ROWS
    frame = pd.DataFrame(random.normal(size=(count, FEATURES)), columns=[f"x{n}" for n in range(FEATURES)])
    frame["y"] = frame.to_numpy() @ random.normal(size=FEATURES) + random.normal(size=count)
    frame["store"] = random.permutation(np.repeat(np.arange(GROUPS), ROWS))
    return frame


def features(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.drop(columns=["y", "store"])


def fit_ridge(rows: pd.DataFrame) -> Ridge:
    return Ridge().fit(features(rows), rows["y"])


def fit_boosting(rows: pd.DataFrame) -> HistGradientBoostingRegressor:
    return HistGradientBoostingRegressor(max_iter=10).fit(features(rows), rows["y"])


FITS = {"ridge": fit_ridge, "boosting": fit_boosting}
