"""Specs of clusters: what is accepted, and how faults are told."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from shoal.launch import specs
from shoal.launch.specs import SpecError, check_spec, find_spec, list_specs, read_spec


def test_a_spec_that_says_nothing_is_a_cluster_here():
    spec = check_spec({})
    assert (spec.name, spec.cluster_class, spec.address, spec.adaptive, spec.idle_stop) == ("cluster", "", "", None, 0)


def test_everything_at_once(tmp_path):
    path = tmp_path / "night shift.yaml"
    path.write_text(
        "cluster_class: dask.distributed.LocalCluster\n"
        "options: {n_workers: 2, dashboard_address: null}\n"
        f"python: {sys.executable}\n"
        "adaptive:\n  minimum: 0\n  maximum: 8\n"
        "idle_stop: 3600\n"
    )
    spec = read_spec(path)
    assert spec.name == "night shift"
    assert spec.options == {"n_workers": 2, "dashboard_address": None}
    assert spec.adaptive == (0, 8) and spec.idle_stop == 3600
    # What may be shown to anybody has no options: there are passwords among them.
    assert "n_workers" not in str(spec.describe())


def test_json_is_as_good_and_may_have_tabs(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('{\n\t"nodes": 3,\n\t"nam": "x"\n}')
    with pytest.raises(SpecError, match=r"^a\.json, line 3: there is no key `nam`\. Did you mean `name`\?$"):
        read_spec(path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("nodes: 2\nadress: x\n", "x.yaml, line 2: there is no key `adress`. Did you mean `address`?"),
        ("nodes: two\n", "x.yaml, line 1: `nodes` is to be a whole number from 0 up, not 'two' (str)."),
        ("name: a\n\noptions:\n  num_cpu: 2\n", "x.yaml, line 4: a cluster on this machine has no option `num_cpu`. "
         "Did you mean `num_cpus`?"),
        ("cluster_class: LocalCluster\n", "such as `dask.distributed.LocalCluster`, not `LocalCluster`."),
        ("address: 10.0.0.4:8786\n", "line 1: `10.0.0.4:8786` is no address such as `tls://10.0.0.4:8786`."),
        ("address: tls://a:1\nnodes: 3\n", "line 2: `nodes` does not go with `address`"),
        ("address: tls://a:1\ntls:\n  ca: nowhere.pem\n", "x.yaml, line 3: the file `nowhere.pem` cannot be read."),
        ("tls: {ca: a, kez: b}\n", "line 1: `tls` has no `kez`; it has `ca`, `cert` and `key`. Did you mean `key`?"),
        ("adaptive: {minimum: 3, maximum: 2}\n", "line 1: `maximum` (2) is less than `minimum` (3)."),
        ("adaptive: {minimum: 3}\n", "line 1: `adaptive` needs a `maximum`."),
        ("nodes: 0\n", "a cluster on this machine has 1 node or more."),
        ("idle_stop: soon\n", "line 1: `idle_stop` is to be seconds, 5 or more, or 0 for never, not 'soon' (str)."),
        ("idle_stop: .inf\n", "`idle_stop` is to be seconds"),
        ("python: python3\n", "line 1: `python3` is not the full path of a Python interpreter."),
        ("options: {labels: {a: 1}}\n", "`labels`"),
        ("options: {when: 2026-01-01}\ncluster_class: a.B\n", "line 1: `options` holds what JSON cannot"),
        ("- a\n", "x.yaml, line 1: a spec is a mapping of keys to values, not ['a'] (list)."),
        ("name: [a\n", "x.yaml, line 2:"),
        ("", "a spec is a mapping of keys to values, not nothing."),
        ("&a [*a]\n", "x.yaml"),
        ("name: ''\n", "`name` is to be a text"),
        ('name: "a\\nb"\n', "`name` is to be a text"),
    ],
)  # fmt: skip
def test_faults_are_told_with_their_line(tmp_path, text, words):
    path = tmp_path / "x.yaml"
    path.write_text(text)
    with pytest.raises(SpecError) as caught:
        read_spec(path)
    assert words in str(caught.value)


def test_all_faults_are_told_at_once():
    with pytest.raises(SpecError) as caught:
        check_spec({"nodez": 1, "idle_stop": -1, "options": {"num_cpus": 0}})
    assert len(str(caught.value).splitlines()) == 3


@pytest.fixture
def directory(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("JUPYTER_CONFIG_DIR", str(tmp_path))
    found = specs.specs_directory()
    found.mkdir(parents=True)
    return found


def test_named_specs(directory):
    (directory / "good.yaml").write_text("options: {num_cpus: 1}\n")
    (directory / "bad.json").write_text("{")
    (directory / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    (directory / "notes.txt").write_text("not a spec")
    (directory / ".hidden.yaml").write_text("{}")
    found = {named.name: named for named in list_specs()}
    assert list(found) == ["bad", "binary", "good"]
    assert found["bad"].spec is None and found["bad"].problem.startswith("bad.json, line 1:")
    assert found["binary"].problem.startswith("binary.yaml cannot be read")
    assert find_spec("good").options == {"num_cpus": 1}
    with pytest.raises(SpecError, match=r"no spec `god` in .*specs\. Did you mean `good`\?"):
        find_spec("god")
    with pytest.raises(SpecError, match=r"bad\.json"):
        find_spec("bad")
    with pytest.raises(SpecError, match="no spec"):
        find_spec("../specs/good")


def test_without_a_directory_there_are_none(tmp_path, monkeypatch):
    monkeypatch.setenv("JUPYTER_CONFIG_DIR", str(tmp_path / "nowhere"))
    assert list_specs() == []


def test_tls_files_are_beside_the_spec(tmp_path):
    for name in ("ca", "cert", "key"):
        (tmp_path / f"{name}.pem").write_text(name)
    path = tmp_path / "x.yaml"
    path.write_text("address: tls://a:1\ntls: {ca: ca.pem, cert: cert.pem, key: key.pem}\n")
    assert read_spec(path).tls["key"] == str(tmp_path / "key.pem")
