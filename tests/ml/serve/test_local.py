"""Applications in the calling process: composition, streams, batches, models, without a cluster."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

import shoal
from shoal_ml import serve


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    yield
    serve.shutdown()
    assert not shoal.is_initialized()
    assert not [thread for thread in threading.enumerate() if thread.name == "shoal-serve-local"]


@serve.deployment
class Adder:
    def __init__(self, amount):
        self.amount = amount

    def __call__(self, x):
        return x + self.amount

    async def twice(self, x):
        return x + 2 * self.amount

    async def count(self, n):
        for i in range(n):
            yield i + self.amount

    def count_plainly(self, n):
        yield from range(n)


@serve.deployment
class Ensemble:
    def __init__(self, members, head):
        self.members = members
        self.head = head

    async def __call__(self, x):
        parts = [member.remote(x) for member in self.members]
        return await self.head.remote(*parts)


@serve.deployment
async def add(*parts):
    return sum(parts)


def test_methods_by_name_plain_and_async():
    handle = serve.run(Adder.bind(10), local=True)
    assert handle.remote(1).result(5) == 11
    assert handle.twice.remote(1).result(5) == 21
    assert serve.get_app_handle().remote(5).result(5) == 15


def test_streams_of_either_kind_of_generator():
    handle = serve.run(Adder.bind(10), local=True)
    assert list(handle.options(stream=True).count.remote(3)) == [10, 11, 12]
    assert list(handle.options(stream=True).count_plainly.remote(3)) == [0, 1, 2]

    async def collect():
        return [item async for item in handle.options(stream=True).count.remote(2)]

    assert asyncio.run(collect()) == [10, 11]
    with pytest.raises(TypeError, match="stream=True"):
        handle.count.remote(1).result(5)


def test_an_ensemble_gets_handles_and_passes_responses_on_unresolved():
    members = [Adder.bind(1), Adder.options(name="Other").bind(2), Adder.bind(3)]
    handle = serve.run(Ensemble.bind(members, add.bind()), local=True)
    assert handle.remote(0).result(5) == 6


def test_one_bound_application_is_one_deployment():
    shared = Adder.bind(5)
    handle = serve.run(Ensemble.bind([shared, shared], add.bind()), local=True)
    assert handle.remote(0).result(5) == 10


def test_errors_keep_their_type():
    @serve.deployment
    def fails(x):
        raise KeyError(x)

    with pytest.raises(KeyError, match="7"):
        serve.run(fails.bind(), local=True).remote(7).result(5)


def test_a_constructor_that_raises_is_told():
    @serve.deployment
    class Broken:
        def __init__(self):
            raise ValueError("no weights")

    with pytest.raises(serve.DeploymentFailedError, match="no weights") as caught:
        serve.run(Broken.bind(), local=True)
    assert isinstance(caught.value.__cause__, ValueError)
    assert (caught.value.application, caught.value.deployment) == ("default", "Broken")


def test_batches_gather_and_answers_go_back_to_their_callers():
    sizes = []

    @serve.deployment(max_ongoing_requests=100)
    class Model:
        @serve.batch(max_batch_size=8, batch_wait_timeout_s=0.05)
        async def __call__(self, xs):
            sizes.append(len(xs))
            return [ValueError("odd one") if x == 5 else x * x for x in xs]

    handle = serve.run(Model.bind(), local=True)
    responses = [handle.remote(x) for x in range(16)]
    for x, response in enumerate(responses):
        if x == 5:
            with pytest.raises(ValueError, match="odd one"):
                response.result(5)
        else:
            assert response.result(5) == x * x
    assert sum(sizes) == 16 and max(sizes) == 8


def test_a_batch_of_the_wrong_length_fails_all_of_it():
    @serve.deployment
    class Model:
        @serve.batch(max_batch_size=2)
        async def __call__(self, xs):
            return xs[1:]

    with pytest.raises(TypeError, match="one answer for each"):
        serve.run(Model.bind(), local=True).remote(1).result(5)


def test_padding_and_buckets():
    seen = []

    @serve.deployment(max_ongoing_requests=100)
    class Model:
        @serve.batch(
            max_batch_size=4,
            batch_wait_timeout_s=0.05,
            bucket_fn=lambda text: len(text) > 3,
            pad_fn=lambda texts: [text.ljust(max(map(len, texts))) for text in texts],
        )
        async def __call__(self, texts):
            seen.append(texts)
            return [len(text) for text in texts]

    handle = serve.run(Model.bind(), local=True)
    responses = [handle.remote(text) for text in ("a", "bbb", "long one", "cc")]
    assert [response.result(5) for response in responses] == [3, 3, 8, 3]
    assert sorted(seen) == [["a  ", "bbb", "cc "], ["long one"]]


@serve.deployment(max_ongoing_requests=100)
class Many:
    def __init__(self):
        self.loads = []

    @serve.multiplexed(max_num_models_per_replica=2)
    async def get_model(self, model_id):
        self.loads.append(model_id)
        if model_id == "bad":
            raise RuntimeError("corrupt file")
        await asyncio.sleep(0)
        return model_id.upper()

    async def __call__(self, x):
        return await self.get_model(serve.get_multiplexed_model_id()), x

    async def history(self):
        return self.loads

    @serve.batch(max_batch_size=10, batch_wait_timeout_s=0.05)
    async def batched(self, xs):
        model = await self.get_model(serve.get_multiplexed_model_id())
        return [(model, len(xs)) for _ in xs]


def test_models_are_loaded_once_and_the_least_recent_goes():
    handle = serve.run(Many.bind(), local=True)
    responses = [handle.options(multiplexed_model_id="a").remote(n) for n in range(5)]
    assert [response.result(5) for response in responses] == [("A", n) for n in range(5)]
    for model_id in ("b", "a", "c", "b"):
        assert handle.options(multiplexed_model_id=model_id).remote(0).result(5) == (model_id.upper(), 0)
    assert handle.history.remote().result(5) == ["a", "b", "c", "b"]


def test_a_model_that_does_not_load_says_so_each_time_and_no_model_is_an_error():
    handle = serve.run(Many.bind(), local=True)
    for _ in range(2):
        with pytest.raises(serve.ModelLoadError, match="corrupt file") as caught:
            handle.options(multiplexed_model_id="bad").remote(0).result(5)
        assert caught.value.model_id == "bad"
    with pytest.raises(ValueError, match="names no model"):
        handle.remote(0).result(5)


def test_batches_are_of_one_model():
    handle = serve.run(Many.bind(), local=True)
    responses = [handle.options(multiplexed_model_id=m).batched.remote(0) for m in "ababa"]
    assert [response.result(5) for response in responses] == [("A", 3), ("B", 2), ("A", 3), ("B", 2), ("A", 3)]


def test_limits_and_user_config():
    gate = threading.Event()

    @serve.deployment(max_ongoing_requests=1, max_queued_requests=1, user_config={"factor": 3})
    class Slow:
        def reconfigure(self, config):
            self.factor = config["factor"]

        def __call__(self, x):
            gate.wait(10)
            return x * self.factor

    handle = serve.run(Slow.bind(), local=True)
    first, second = handle.remote(1), handle.remote(2)
    with pytest.raises(serve.BackPressureError) as caught:
        handle.remote(3).result(5)
    assert caught.value.retry_after == 1.0 and caught.value.deployment
    with pytest.raises(shoal.errors.GetTimeoutError):
        first.result(0.01)
    gate.set()
    assert (first.result(5), second.result(5)) == (3, 6)


def test_a_predictor_of_batches_answers_rows():
    sizes = []

    class Squares:
        def predict(self, batch):
            sizes.append(len(batch["x"]))
            return {"y": batch["x"] ** 2}

    handle = serve.run(serve.predictor(Squares, max_batch_size=4, batch_wait_timeout_s=0.05).bind(), local=True)
    answers = [handle.remote({"x": x}) for x in range(6)]
    assert [answer.result(5)["y"] for answer in answers] == [0, 1, 4, 9, 16, 25]
    assert sorted(sizes) == [2, 4]
    with pytest.raises(TypeError, match="one row"):
        handle.remote(3).result(5)


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"num_replica": 2}, "Did you mean `num_replicas`"),
        ({"ray_actor_options": {}}, "called `actor_options`"),
        ({"max_ongoing_requests": 0}, "max_ongoing_requests"),
        ({"actor_options": {"name": "x"}}, "has its own"),
        ({"actor_options": {"num_cpu": 1}}, "Did you mean `num_cpus`"),
        ({"autoscaling_config": {"min_replicas": 3, "max_replicas": 2}}, "max_replicas"),
        ({"autoscaling_config": {"target": 3}}, "Unknown option `target`"),
        ({"name": "a#b"}, "without `#`"),
    ],
)
def test_options_are_checked_where_they_are_written(options, what):
    with pytest.raises(shoal.errors.OptionError, match=what):
        serve.deployment(**options)(len)


def test_what_is_no_application_is_refused():
    with pytest.raises(TypeError, match="bind"):
        serve.run(Adder, local=True)
    with pytest.raises(TypeError, match="takes no arguments"):
        add.bind(1)
    with pytest.raises(TypeError, match="is a deployment"):
        Adder(1)
    with pytest.raises(shoal.errors.OptionError, match="letters"):
        serve.run(add.bind(), name="a b", local=True)
