"""Rows of the transfer between two machines: this process, the scheduler and a worker on one, a worker on the other.

``networks.py`` starts it in the first of two network namespaces, and names the second. Each machine has a shared
memory of its own, so that nothing is read but over the wire.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from distributed import Client, LocalCluster
from distributed.comm import connect
from distributed.protocol import Serialized
from distributed.security import Security
from networks import on_machine
from serve import serve

import shoal

NBYTES, PIECE = 400_000_000, 4 << 20
FAR_PORT = 8_700
#: Seconds for anything to answer.
PATIENCE = 60.0


@shoal.remote(num_cpus=0, resources={"far": 1})
def length(array):
    return len(array)


class Rows:
    def __init__(self):
        self.near, self.far = os.environ["BENCH_NEAR"], os.environ["BENCH_FAR"]
        self.array = np.ones(NBYTES // 8)
        self.security = Security.temporary()
        self._directory = tempfile.TemporaryDirectory(prefix="bench-")
        directory = Path(self._directory.name)
        tls = {
            "ca-file": self.security.tls_ca_file,
            "cert": self.security.tls_client_cert,
            "key": self.security.tls_client_key,
        }
        for name, text in tls.items():
            (directory / name).write_text(str(text))
            (directory / name).chmod(0o600)
        self.cluster = LocalCluster(
            host=self.near,
            n_workers=1,
            threads_per_worker=1,
            security=self.security,
            protocol="tls://",
            dashboard_address=None,
            worker_dashboard_address=None,
            memory_limit=0,
            local_directory=str(directory),
        )
        command = [sys.executable, "-m", "distributed.cli.dask_worker", self.cluster.scheduler_address]
        command += ["--host", self.far, "--nthreads", "1", "--no-nanny", "--no-dashboard", "--resources", "far=1"]
        command += ["--memory-limit", "0", "--local-directory", str(directory / "far")]
        command += [word for name in tls for word in (f"--tls-{name}", str(directory / name))]
        receiver = [sys.executable, str(Path(__file__).with_name("receive.py")), self.far, str(FAR_PORT)]
        receiver += [str(directory / name) for name in tls]
        self.others = [
            subprocess.Popen(on_machine(os.environ["BENCH_FAR_NAMESPACE"], one), stdin=subprocess.PIPE)
            for one in (command, receiver)
        ]
        self.client = Client(self.cluster, set_as_default=False)
        self.client.wait_for_workers(2, timeout=PATIENCE)
        addresses = self.client.scheduler_info()["workers"]
        self.near_worker = next(one for one in addresses if self.near in one)
        self.far_worker = next(one for one in addresses if self.far in one)
        shoal.init(self.cluster, timeout=30)
        assert shoal.get(length.remote([1]), timeout=PATIENCE) == 1

    def stream(self, count):
        """One comm of Dask's, in pieces as large as those of shoal, thrown away where they arrive."""
        return {"rates": [asyncio.run(self._stream(PIECE)) for _ in range(count)]}

    def stream_whole(self, count):
        """The same in one message."""
        return {"rates": [asyncio.run(self._stream(NBYTES)) for _ in range(count)]}

    async def _stream(self, piece):
        arguments = self.security.get_connection_args("client")
        comm = await connect(f"tls://{self.far}:{FAR_PORT}", timeout=PATIENCE, deserialize=False, **arguments)
        data = memoryview(self.array).cast("B")
        begin = time.perf_counter()
        for offset in range(0, NBYTES, piece):
            await comm.write([b"piece", Serialized({}, [data[offset : offset + piece]])])
        await comm.write(b"end")
        received = await asyncio.wait_for(comm.read(), PATIENCE)
        seconds = time.perf_counter() - begin
        assert received == NBYTES
        await comm.close()
        return NBYTES / 1e9 / seconds

    def transfer_shoal(self, count):
        rates = []
        for _ in range(count):
            ref = shoal.put(self.array)
            begin = time.perf_counter()
            assert shoal.get(length.remote(ref), timeout=PATIENCE) == len(self.array)
            rates.append(NBYTES / 1e9 / (time.perf_counter() - begin))
            del ref
            time.sleep(0.3)  # until it is free
        return {"rates": rates}

    def transfer_dask(self, count):
        rates = []
        for _ in range(count):
            future = self.client.scatter(self.array, workers=[self.near_worker], hash=False)
            begin = time.perf_counter()
            done = self.client.submit(len, future, workers=[self.far_worker], pure=False, resources={})
            assert done.result(timeout=PATIENCE) == len(self.array)
            rates.append(NBYTES / 1e9 / (time.perf_counter() - begin))
            del future, done
            time.sleep(0.3)
        return {"rates": rates}

    def close(self):
        shoal.shutdown()
        self.client.close()
        for process in self.others:
            process.terminate()
        for process in self.others:
            process.wait(20)
        self.cluster.close()


if __name__ == "__main__":
    serve(Rows)
