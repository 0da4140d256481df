"""Two thousand models on two replicas with room for a hundred each."""

from __future__ import annotations

import asyncio
import bisect
import itertools
import random

import numpy as np
import pytest

import shoal
from shoal_ml import serve

pytestmark = pytest.mark.usefixtures("applications")
NUM_MODELS = 2_000
NUM_REQUESTS = 3_000
#: Of Zipf's law: how much rarer each model is than the one before.
EXPONENT = 1.6


@serve.deployment(num_replicas=2, max_ongoing_requests=64)
class Many:
    def __init__(self):
        self.id = serve.get_replica_context().replica_id

    @serve.multiplexed(max_bytes_per_replica=100 * 8_000)
    async def get_model(self, model_id):
        await asyncio.sleep(0)
        return np.full(1_000, float(model_id))

    async def __call__(self, x):
        model = await self.get_model(serve.get_multiplexed_model_id())
        return float(model[0]) + x

    async def numbers(self):
        cache = self.get_model.cache
        return self.id, cache.hits, cache.misses, cache.nbytes


@shoal.remote(num_cpus=0)
def send(handle, ids):
    """Send requests, forty at a time, so that no replica is full; returns how many answers were wrong."""

    async def run():
        turns = asyncio.Semaphore(40)

        async def one(model_id):
            async with turns:
                answer = await handle.options(multiplexed_model_id=str(model_id)).remote(1.0)
                return answer != model_id + 1.0

        return sum(await asyncio.gather(*map(one, ids)))

    return asyncio.run(run())


def test_nine_of_ten_requests_find_their_model_loaded(cluster):
    handle = serve.run(Many.bind(), route_prefix=None)
    weights = list(itertools.accumulate(1 / rank**EXPONENT for rank in range(1, NUM_MODELS + 1)))
    rng = random.Random(5)
    ids = [bisect.bisect(weights, rng.random() * weights[-1]) for _ in range(NUM_REQUESTS)]
    assert shoal.get(send.remote(handle, ids), 100) == 0
    numbers = {}
    while len(numbers) < 2:
        found = [handle.numbers.remote() for _ in range(10)]
        numbers |= {row[0]: row[1:] for row in (response.result(20) for response in found)}
    hits, misses = (sum(row[index] for row in numbers.values()) for index in (0, 1))
    assert hits + misses == NUM_REQUESTS
    assert all(nbytes <= 100 * 8_000 for _, _, nbytes in numbers.values())
    assert hits / NUM_REQUESTS >= 0.9, (hits, misses)
