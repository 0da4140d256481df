"""Loading, help, settings, status, unloading: in a kernel without a cluster at first."""

from __future__ import annotations

from typing import Any

Kernel = Any


def test_loading_is_light_and_idempotent(kernel: Kernel) -> None:
    code = "import sys, subprocess\nsubprocess.run([sys.executable, '-c', {!r}], capture_output=True, text=True).stdout"
    script = (
        "import sys\nfrom IPython.core.interactiveshell import InteractiveShell\nip = InteractiveShell()\n"
        "ip.run_line_magic('load_ext', 'shoal')\n"
        "print([m for m in ('distributed', 'dask', 'torch', 'numpy', 'bokeh', 'ipywidgets') if m in sys.modules])"
    )
    assert kernel.ok(code.format(script)).value == "'[]\\n'"
    assert "already loaded" in kernel.ok("%load_ext shoal").text()


def test_the_docstring_is_the_manual(kernel: Kernel) -> None:
    outcome = kernel.ok("%remote?")
    (page,) = outcome.reply["content"]["payload"]
    text = page["data"]["text/plain"]
    for word in ("--num-cpus", "--timeout", "%remote status", "copies"):
        assert word in text


def test_settings_are_settings(kernel: Kernel) -> None:
    assert "Remote" in kernel.ok("%config").text()
    kernel.ok("%config Remote.inline = True")
    kernel.ok("import os")
    assert kernel.ok("%%remote\nos.getpid()").value == kernel.ok("os.getpid()").value
    kernel.ok("%config Remote.inline = False")


def test_status_is_text_and_html(kernel: Kernel) -> None:
    outcome = kernel.ok("%remote status")
    (result,) = outcome.of_type("execute_result")
    assert "shoal cluster" in result["data"]["text/plain"] and "shoal-card" in result["data"]["text/html"]
    assert "<script" not in result["data"]["text/html"]


def test_a_cluster_starts_by_itself_and_says_so(kernel: Kernel) -> None:
    kernel.ok("shoal.shutdown()")
    assert "There is no cluster yet" in kernel.run("%remote status").text("stderr")
    assert kernel.ok("%%remote\n1").text().startswith("shoal: started a cluster")
    assert kernel.ok("%%remote\n1").text() == ""


def test_unloading_undoes_everything(kernel: Kernel) -> None:
    kernel.ok("ip = get_ipython()\nconfigurables = len(ip.configurables)")
    kernel.ok("%unload_ext shoal")
    assert kernel.run("%%remote\n1").status == "error"
    check = (
        "len(ip.configurables) - configurables, 'Remote' in ip.magics_manager.registry, "
        "[c for c in ip.events.callbacks['pre_run_cell'] if 'shoal' in repr(c)], shoal.api.output._sink"
    )
    assert kernel.ok(check).value == "(-1, False, [], None)"
    kernel.ok("%load_ext shoal")
    assert kernel.ok("%%remote\n1").value == "1"
    kernel.ok("%reload_ext shoal")
    assert kernel.ok("%%remote\n2").value == "2"
