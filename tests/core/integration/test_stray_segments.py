"""What nobody has heard of is found and freed. A session of its own: the agent runs in this process."""

from __future__ import annotations

import os
import signal
import time

import numpy as np
import pytest
from distributed import LocalCluster

import shoal
from shoal.machines import strays


def test_what_a_killed_executor_had_written_is_freed_though_it_could_tell_nobody(monkeypatch, tmp_path, wait_until):
    """Segments that their owner has never heard of are found and removed, and no others."""
    monkeypatch.setattr(strays, "GRACE", 1.0)
    runs = tmp_path / "runs"
    runs.touch()

    @shoal.remote
    def write_and_die():
        from shoal.runtime.store.room import Draft

        def publish(draft, path):
            publish_really(draft, path)
            with open(runs, "a") as file:
                file.write("x")
            if runs.stat().st_size < 3:
                os.kill(os.getpid(), signal.SIGKILL)

        publish_really, Draft.publish = Draft.publish, publish
        return np.ones(200_000)

    @shoal.remote
    class Holder:
        def __init__(self, array):
            self.ref = shoal.put(array * 2)

        def size(self):
            return shoal.get(self.ref).size

    # In one process with this test, so that the agent is the one whose patience was shortened.
    with (
        LocalCluster(
            n_workers=1, threads_per_worker=2, processes=False, protocol="tcp://", dashboard_address=":0"
        ) as dask_cluster,
        pytest.warns(UserWarning, match="TLS"),
        shoal.init(dask_cluster, timeout=30),
    ):
        store = shoal.api.session._session.owner.store
        kept = shoal.put(np.ones(200_000))
        holder = Holder.remote(np.ones(200_000))
        assert shoal.get(holder.size.remote(), timeout=30) == 200_000
        ref = write_and_die.remote()
        assert shoal.get(ref, timeout=60).size == 200_000
        assert runs.stat().st_size == 3

        def written():
            return [found.name for found in store.segments() if ref.id[3:] in found.name]

        wait_until(lambda: len(written()) == 1, "an end of the two strays")
        time.sleep(2.5)
        assert len(written()) == 1
        assert shoal.get([ref, kept, holder.size.remote()], timeout=30)[0].size == 200_000
