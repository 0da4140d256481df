"""Fresh processes: from before the import to the first result, and the memory of an idle cluster."""

from __future__ import annotations

import json
import subprocess
import time

import psutil

_SHOAL = """
import shoal
shoal.init(num_cpus=2)
shoal.get(shoal.remote(lambda: 1).remote())
"""
_RAY = """
import os, tempfile
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
import ray
ray.init(num_cpus=2, include_dashboard=False, logging_level="ERROR", log_to_driver=False,
         object_store_memory=2 << 30, _temp_dir=tempfile.mkdtemp(prefix="ray-", dir="/tmp"))
ray.get(ray.remote(lambda: 1).remote())
"""
_DASK = """
from distributed import Client, LocalCluster, Security
security = Security.temporary()
client = Client(LocalCluster(n_workers=1, threads_per_worker=2, security=security, protocol="tls://",
                             dashboard_address=":0"))
client.submit(lambda: 1).result()
"""
PROGRAMS = {"shoal": _SHOAL, "ray": _RAY, "dask": _DASK}
#: Seconds that a cluster is left alone before its memory is taken.
SETTLE = 2.0


def start_once(python: str, system: str) -> dict[str, float]:
    """Start *system* in a fresh process; return the seconds to its first result, and what it then occupies."""
    program = (
        "if __name__ == '__main__':\n    import json, sys, time\n    begin = time.perf_counter()\n"
        + "".join(f"    {line}\n" for line in PROGRAMS[system].strip().splitlines())
        + "    print(json.dumps(time.perf_counter() - begin), flush=True)\n    sys.stdin.read()\n"
    )
    process = subprocess.Popen(
        [python, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdin is not None and process.stdout is not None
    seconds = float(json.loads(process.stdout.readline()))
    time.sleep(SETTLE)
    children = psutil.Process(process.pid).children(recursive=True)
    nbytes = sum(child.memory_full_info().pss for child in children)
    process.stdin.close()
    process.wait(60)
    for child in psutil.wait_procs(children, timeout=15)[1]:
        child.kill()
    return {"seconds": seconds, "mebibytes": nbytes / 2**20, "processes": len(children)}
