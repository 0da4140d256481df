"""One address for many models."""

from __future__ import annotations

import json
from collections.abc import Iterator
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pandas as pd
import pytest

import shoal
from shoal_ml import serve
from shoal_ml.train import FittedModels, fit_many, model_id, serve_many


class Doubles:
    def __init__(self, by: int) -> None:
        self.by = by

    def predict(self, rows):
        return rows["x"] * self.by


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FittedModels]:
    with shoal.init(num_cpus=2):
        frame = pd.DataFrame({"town": ["Oslo", "Rome"] * 3, "size": [1, 1, 2, 2, 3, 3], "x": range(6)})
        store = tmp_path_factory.mktemp("store")
        made = fit_many(lambda rows, key: Doubles(10 * key[1]), frame, by=["town", "size"], store=str(store))
        yield made
        made.close()
        serve.shutdown()


def test_every_key_has_its_model(models: FittedModels) -> None:
    handle = serve_many(models, num_replicas=2, http_options={"port": 0})
    for key in models:
        answer = handle.options(multiplexed_model_id=model_id(key)).remote([{"x": 1}, {"x": 2}]).result(30)
        assert answer == {"predictions": [10 * key[1], 20 * key[1]]}


def test_over_http_and_a_key_that_has_none(models: FittedModels) -> None:
    serve_many(models, num_replicas=2, http_options={"port": 0})
    url = serve.status().application("models").url

    def ask(key: str):
        headers = {"content-type": "application/json", "serve_multiplexed_model_id": key}
        with urlopen(Request(url, json.dumps([{"x": 3}]).encode(), headers), timeout=30) as reply:
            return json.load(reply)

    assert ask('["Rome",2]') == {"predictions": [60]}
    with pytest.raises(HTTPError) as caught:
        ask('["Paris",2]')
    assert caught.value.code == 404 and "no model for the key" in json.load(caught.value)["error"]


def test_names_of_models() -> None:
    assert model_id("store 17") == "store 17" and model_id(("a", 1)) == '["a",1]' and model_id(7) == "7"
