"""The built-in predictors, each with a small real model."""

from __future__ import annotations

import os

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.linear_model import LinearRegression, LogisticRegression

from shoal.errors import OptionError
from shoal_ml.batch.errors import BatchError, ColumnError, RowCountError
from shoal_ml.batch.predictors import (
    Checkpoint,
    FunctionPredictor,
    OnnxPredictor,
    PipelinePredictor,
    Predictor,
    SklearnPredictor,
    TorchPredictor,
    choose_predictor,
)
from shoal_ml.batch.predictors.contract import check_predictions
from shoal_ml.batch.testing import check_predictor

ROWS = 12
X = np.random.default_rng(0).normal(size=(ROWS, 3)).astype(np.float32)
COLUMNS = {"a": X[:, 0].astype(np.float64), "b": X[:, 1].astype(np.float64), "c": X[:, 2].astype(np.float64)}


class Net(torch.nn.Module):
    def __init__(self, outputs: int = 2) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(3, outputs)
        self.drop = torch.nn.Dropout(0.5)

    def forward(self, x):
        return self.drop(self.layer(x))


class Named(torch.nn.Module):
    def forward(self, a, b):
        return a + b, {"kept": a}["kept"]


def loaded(predictor, model):
    predictor.load(model)
    return predictor


def test_torch_predicts_as_the_module_does():
    net = Net()
    check_predictor(TorchPredictor(), net, {"x": X})
    expected = net.eval()(torch.from_numpy(X)).detach().numpy()
    result = loaded(TorchPredictor(outputs="logits"), Net().train()).predict({"x": X})
    assert set(result) == {"logits"}
    again = check_predictions(loaded(TorchPredictor(), net).predict({"x": X}), ROWS, "")
    assert np.array_equal(again["predictions"], expected)


def test_torch_takes_columns_stacked_and_in_its_own_type():
    net = Net().eval()
    result = check_predictions(loaded(TorchPredictor(), net).predict(COLUMNS), ROWS, "")
    assert np.array_equal(result["predictions"], net(torch.from_numpy(X)).detach().numpy())
    assert (
        check_predictions(loaded(TorchPredictor(), Net().double()).predict(COLUMNS), ROWS, "")["predictions"].dtype
        == np.float64
    )


@pytest.mark.parametrize("inputs", ["named", "ordered"])
def test_torch_takes_columns_one_by_one(inputs):
    predictor = loaded(TorchPredictor(inputs=inputs, outputs=("sum", "first")), Named())
    result = check_predictions(predictor.predict({"a": X[:, 0], "b": X[:, 1]}), ROWS, "")
    assert np.array_equal(result["sum"], X[:, 0] + X[:, 1]) and np.array_equal(result["first"], X[:, 0])
    unnamed = loaded(TorchPredictor(inputs=inputs), Named()).predict({"a": X[:, 0], "b": X[:, 1]})
    assert list(unnamed) == ["predictions_0", "predictions_1"]


def test_torch_counts_outputs_and_their_names():
    with pytest.raises(BatchError, match="returned 2 outputs, and `outputs` names 1"):
        loaded(TorchPredictor(inputs="named", outputs="one"), Named()).predict({"a": X, "b": X})
    with pytest.raises(OptionError, match="`inputs` is one of"):
        TorchPredictor(inputs="piled")
    with pytest.raises(OptionError, match="takes a torch module, not dict"):
        TorchPredictor().load({})


def test_columns_that_do_not_fit_together_are_named():
    net = loaded(TorchPredictor(), Net())
    with pytest.raises(BatchError, match=r"cannot be stacked, their rows have the shapes `x` \(3,\), `image` \(4, 4\)"):
        net.predict({"x": X, "image": np.zeros((ROWS, 4, 4))})
    with pytest.raises(BatchError, match="Column `text` holds str"):
        net.predict({"text": np.array(["a", "b"], dtype=object)})
    ragged = np.empty(2, dtype=object)
    ragged[:] = [np.zeros(2), np.zeros(3)]
    with pytest.raises(BatchError, match="rows of column `x` differ in shape"):
        net.predict({"x": ragged})


def test_sklearn_predicts_as_the_estimator_does():
    model = LogisticRegression().fit(X, np.arange(ROWS) % 3)
    check_predictor(SklearnPredictor(("predict", "predict_proba")), model, {"x": X})
    result = loaded(SklearnPredictor(("predict", "predict_proba")), model).predict({"x": X})
    assert np.array_equal(result["predictions"], model.predict(X))
    assert np.array_equal(result["predict_proba"], model.predict_proba(X))
    with pytest.raises(OptionError, match="`LinearRegression` has no method `predict_proba`"):
        SklearnPredictor("predict_proba").load(LinearRegression())


def test_sklearn_gets_a_frame_in_the_order_in_which_it_was_fitted():
    frame = pd.DataFrame(COLUMNS)
    model = LinearRegression().fit(frame[["c", "a", "b"]], X[:, 0])
    result = loaded(SklearnPredictor(), model).predict(COLUMNS)
    assert np.array_equal(result["predictions"], model.predict(frame[["c", "a", "b"]]))


def test_functions_and_callables():
    check_predictor(FunctionPredictor(lambda model, batch: {"y": batch["a"] * model}), 3, COLUMNS)
    predictor = loaded(FunctionPredictor(outputs="y"), lambda batch: batch["a"] + 1)
    assert np.array_equal(predictor.predict(COLUMNS)["y"], COLUMNS["a"] + 1)
    with pytest.raises(OptionError, match="type int cannot be called"):
        FunctionPredictor().load(3)


@pytest.mark.parametrize(
    ("returned", "error", "words"),
    [
        ({"y": np.zeros(5)}, RowCountError, r"returned 5 rows as `y` for a batch of 12"),
        ({"y": np.float32(3)}, RowCountError, r"returned one value as `y`"),
        (np.zeros(ROWS), BatchError, r"returned ndarray: return a dict"),
        (None, BatchError, r"returned NoneType"),
    ],
)
def test_what_a_predictor_returns_is_checked(returned, error, words):
    with pytest.raises(error, match=words):
        check_predictions(returned, ROWS, "Mine")


@pytest.mark.parametrize(
    ("model", "kind"),
    [
        (Net(), TorchPredictor),
        (LinearRegression(), SklearnPredictor),
        (b"onnx", OnnxPredictor),
        ("model.onnx", OnnxPredictor),
        (len, FunctionPredictor),
        (Checkpoint({}, Net), TorchPredictor),
        (Checkpoint(LinearRegression()), SklearnPredictor),
    ],
)
def test_what_a_model_is_decides_who_predicts(model, kind):
    assert type(choose_predictor(model, None)) is kind


def test_a_predictor_may_be_given_in_several_ways():
    mine = TorchPredictor(outputs="z")
    assert choose_predictor(None, mine) is mine
    assert type(choose_predictor(None, SklearnPredictor)) is SklearnPredictor
    assert type(choose_predictor(None, lambda model, batch: {})) is FunctionPredictor
    with pytest.raises(OptionError, match="What predicts with a model of type dict"):
        choose_predictor({}, None)
    with pytest.raises(OptionError, match="`predictor` is a `Predictor`"):
        choose_predictor(None, 3)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("wrapped", [False, True])
def test_weights_become_a_module(tmp_path, suffix, wrapped):
    net, path = Net(4).eval(), tmp_path / f"net{suffix}"
    if suffix == ".pt":
        torch.save({"epoch": 3, "model_state_dict": net.state_dict()} if wrapped else net.state_dict(), path)
    else:
        pytest.importorskip("safetensors")
        from safetensors.torch import save_file

        save_file(net.state_dict(), path)
    checkpoint = Checkpoint.from_file(path, Net, 4)
    result = check_predictions(loaded(TorchPredictor(), checkpoint).predict({"x": X}), ROWS, "")
    assert np.array_equal(result["predictions"], net(torch.from_numpy(X)).detach().numpy())


class Runs:
    """Leaves a trace when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_nothing_is_unpickled_without_being_told(tmp_path):
    joblib.dump(LinearRegression().fit(X, X[:, 0]), tmp_path / "good.joblib")
    with pytest.raises(OptionError, match=r"pickle: to read it runs whatever its author put in.*`trust=True`"):
        Checkpoint.from_file(tmp_path / "good.joblib")
    checkpoint = Checkpoint.from_file(tmp_path / "good.joblib", trust=True)
    assert loaded(SklearnPredictor(), checkpoint).predict({"x": X})["predictions"].shape == (ROWS,)
    torch.save({"weights": Runs(str(tmp_path / "ran"))}, tmp_path / "evil.pt")
    with pytest.raises(Exception, match="Weights only load failed"):
        Checkpoint.from_file(tmp_path / "evil.pt", Net)
    assert not (tmp_path / "ran").exists()


def test_checkpoints_that_cannot_be(tmp_path):
    with pytest.raises(OptionError, match="no checkpoint that shoal reads"):
        Checkpoint.from_file(tmp_path / "model.h5")
    with pytest.raises(FileNotFoundError, match="There is no checkpoint"):
        Checkpoint.from_file(tmp_path / "model.pt", Net)
    torch.save(Net().state_dict(), tmp_path / "model.pt")
    with pytest.raises(OptionError, match="give a `factory`"):
        Checkpoint.from_file(tmp_path / "model.pt")
    with pytest.raises(RuntimeError, match="size mismatch"):
        Checkpoint.from_file(tmp_path / "model.pt", Net, 7).build()


def test_buffers_that_a_state_does_not_hold_come_from_the_factory():
    class Buffered(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(1, 1)
            self.register_buffer("scale", torch.full((1,), 3.0), persistent=False)

        def forward(self, x):
            return self.layer(x) * self.scale

    net = Buffered().eval()
    built = Checkpoint(net.state_dict(), Buffered).build()
    assert torch.equal(built(torch.ones(1, 1)), net(torch.ones(1, 1)))


def onnx_bytes(two_inputs: bool = False) -> bytes:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    from onnx import TensorProto, helper

    def value(name, *shape):
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    if two_inputs:
        nodes = [helper.make_node("Add", ["a", "b"], ["sum"])]
        graph = helper.make_graph(nodes, "two", [value("a", "n"), value("b", "n")], [value("sum", "n")])
    else:
        weights = helper.make_tensor("w", TensorProto.FLOAT, (3, 2), np.arange(6, dtype=np.float32).tolist())
        nodes = [helper.make_node("MatMul", ["x", "w"], ["y"]), helper.make_node("Relu", ["y"], ["z"])]
        graph = helper.make_graph(
            nodes, "one", [value("x", "n", 3)], [value("y", "n", 2), value("z", "n", 2)], [weights]
        )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def test_onnx_predicts_as_the_graph_says(tmp_path):
    data = onnx_bytes()
    check_predictor(OnnxPredictor(), data, {"x": X})
    weights = np.arange(6, dtype=np.float32).reshape(3, 2)
    for model in (data, str(tmp_path / "model.onnx")):
        (tmp_path / "model.onnx").write_bytes(data)
        result = loaded(OnnxPredictor(), model).predict(COLUMNS)
        assert np.allclose(result["y"], X @ weights, atol=1e-5)
        assert np.allclose(result["z"], np.maximum(X @ weights, 0), atol=1e-5)
    assert list(loaded(OnnxPredictor(outputs="z"), data).predict({"x": X})) == ["z"]
    with pytest.raises(OptionError, match="no output `w`"):
        OnnxPredictor(outputs="w").load(data)


def test_onnx_with_several_inputs_takes_columns_by_name():
    predictor = loaded(OnnxPredictor(), onnx_bytes(two_inputs=True))
    result = predictor.predict({"b": X[:, 1], "a": X[:, 0], "other": X})
    assert np.array_equal(result["sum"], X[:, 0] + X[:, 1])
    with pytest.raises(ColumnError, match="no column `b`, an input of the model"):
        predictor.predict({"a": X[:, 0]})


def test_pipelines_take_one_column():
    """The shapes of answers that pipelines give; the package itself has a test of its own."""

    def pipeline(texts, batch_size):
        return [{"label": text.upper(), "score": 1.0} for text in texts]

    predictor = loaded(PipelinePredictor(), pipeline)
    texts = np.array(["a", "b"], dtype=object)
    assert predictor.predict({"text": texts}) == {"label": ["A", "B"], "score": [1.0, 1.0]}
    with pytest.raises(OptionError, match="takes one column, and there are 2"):
        predictor.predict({"text": texts, "more": texts})
    nested = loaded(PipelinePredictor(), lambda texts, batch_size: [[{"generated_text": text}] for text in texts])
    assert nested.predict({"text": texts}) == {"generated_text": ["a", "b"]}


class Breaks(Predictor):
    def __init__(self, how):
        self.how = how

    def load(self, model):
        self.calls = 0

    def predict(self, batch):
        self.calls += 1
        x = batch["x"]
        match self.how:
            case "changes":
                x += 1
                return {"y": x.copy()}
            case "counts":
                return {"y": x + self.calls}
            case "depends":
                return {"y": x - x.mean()}
            case "drops":
                return {"y": x[:-1]}
            case _:
                return {}


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("changes", "has changed column `x`"),
        ("counts", "another result for the same batch"),
        ("depends", "depends on the others: in halves"),
        ("nothing", "returned no column"),
    ],
)
def test_the_conformance_suite_finds_what_breaks_the_contract(how, words):
    with pytest.raises(AssertionError, match=words):
        check_predictor(Breaks(how), None, {"x": np.arange(8.0)})


def test_the_conformance_suite_counts_rows():
    with pytest.raises(RowCountError):
        check_predictor(Breaks("drops"), None, {"x": np.arange(8.0)})


def test_a_pipeline_of_transformers_predicts_as_by_itself():
    """With a tiny model of random weights, made here: nothing is downloaded."""
    transformers = pytest.importorskip("transformers")
    tokenizers = pytest.importorskip("tokenizers")
    words = {word: number for number, word in enumerate(["[PAD]", "[UNK]", "good", "bad", "day"])}
    inner = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="[UNK]"))
    inner.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="[PAD]", unk_token="[UNK]")
    config = transformers.BertConfig(
        vocab_size=5, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8
    )
    torch.manual_seed(0)
    model = transformers.BertForSequenceClassification(config).eval()
    pipeline = transformers.pipeline("text-classification", model=model, tokenizer=tokenizer)
    texts = np.array(["good day", "bad day", "bad", "good good day"], dtype=object)
    expected = pipeline(texts.tolist())
    for predictor, value in (
        (choose_predictor(pipeline, None), pipeline),
        (PipelinePredictor("text-classification"), {"model": model, "tokenizer": tokenizer}),
    ):
        assert type(predictor) is PipelinePredictor
        check_predictor(predictor, value, {"text": texts})
        result = loaded(predictor, value).predict({"text": texts})
        assert result["label"] == [one["label"] for one in expected]
        assert np.allclose(result["score"], [one["score"] for one in expected], atol=1e-5)
