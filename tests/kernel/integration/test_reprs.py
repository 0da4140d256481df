"""What a notebook shows of refs, actors and the cluster: text and HTML, and a live view where there can be one."""

from __future__ import annotations

import pytest

WIDGET = "application/vnd.jupyter.widget-view+json"


def data_of(outcome):
    (result,) = outcome.of_type("execute_result")
    return result["data"]


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        ("ref", "made by: `f` in In["),
        ("counter", "actor Counter"),
        ("group", "bundle  reserves    node"),
        ("shoal.nodes()", "CPUs free"),
        ("f", "call: f.remote(x)"),
        ("Counter", "actor class Counter"),
        ("shoal.why(ref)", ": ready"),
        ("values", "values: 2 have arrived, 2 were taken"),
    ],
)
def test_each_has_text_and_html(kernel, expression, said):
    kernel.ok(
        """
f = shoal.remote(lambda x: x)
@shoal.remote
def f(x): return x
@shoal.remote
class Counter:
    def get(self): return 1
@shoal.remote
def count(): yield from range(2)
ref, counter, group, values = f.remote(1), Counter.remote(), shoal.placement_group([{"num_cpus": 1}]), count.remote()
shoal.get([ref, counter.get.remote(), group.ready(), *values]);
"""
    )
    data = data_of(kernel.ok(expression))
    kernel.ok("group.remove(); del group, counter")
    assert said in data["text/plain"]
    assert "shoal-described" in data["text/html"] and "<script" not in data["text/html"]
    assert set(data) == {"text/plain", "text/html"}


def test_the_card_is_text_html_and_a_view(kernel):
    data = data_of(kernel.ok("shoal.init()"))
    assert set(data) == {"text/plain", "text/html", WIDGET}
    assert "shoal cluster" in data["text/plain"] and "shoal-card" in data["text/html"]


def test_status_lists_functions_and_actors(kernel):
    kernel.ok("named = shoal.remote(lambda: 1).options(name='plural')\nshoal.get([named.remote() for _ in range(3)]);")
    kernel.wait_for(lambda _: "plural" in data_of(kernel.ok("%remote status"))["text/plain"], "")
    assert "plural" in data_of(kernel.ok("%remote status"))["text/html"]


def test_an_inline_session_has_no_view(kernel):
    kernel.ok("shoal.shutdown()")
    data = data_of(kernel.ok("shoal.init(inline=True)"))
    kernel.ok("shoal.shutdown()\nshoal.init(num_cpus=2);")
    assert set(data) == {"text/plain", "text/html"}


def test_without_ipywidgets_the_card_is_text_and_html(kernel):
    kernel.ok("import sys\nsys.modules['ipywidgets'] = None")
    data = data_of(kernel.ok("shoal.init()"))
    kernel.ok("del sys.modules['ipywidgets']")
    assert set(data) == {"text/plain", "text/html"}


def test_importing_shoal_and_the_extension_does_not_import_ipywidgets(kernel):
    code = "import sys, shoal, shoal_kernel.extension; print([m for m in ('ipywidgets', 'bokeh') if m in sys.modules])"
    assert (
        kernel.ok(f"import subprocess\nprint(subprocess.check_output([sys.executable, '-c', {code!r}], text=True))")
        .text()
        .strip()
        == "[]"
    )
