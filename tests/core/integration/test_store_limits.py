"""A store that is full says what fills it; clusters of one's own with little room."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

import shoal


def ones(nbytes: int) -> np.ndarray:
    return np.ones(nbytes, np.uint8)


def test_a_full_store_names_makers_and_holders(names):
    make = shoal.remote(ones)
    with shoal.init(num_cpus=1, object_store_memory=4_000_000):
        first, second = make.remote(1_500_000), shoal.put(ones(1_500_000))
        kept = [shoal.get(first), shoal.get(second)]
        names(first=first, second=second, kept=kept)
        with pytest.raises(shoal.errors.ObjectStoreFullError) as caught:
            shoal.put(ones(2_000_000))
        text = str(caught.value)
        assert "made by `ones`; held by `first`; held by `kept` (its memory)  (mapped)" in text
        assert "made by `put`; held by `second`; held by `kept` (its memory)  (mapped)" in text
        with pytest.raises(shoal.errors.ObjectStoreFullError, match="held by `second`"):
            make.remote(ones(2_000_000))
        kept.clear()
        assert shoal.get(shoal.put(ones(2_000_000))).sum() == 2_000_000, "others go to disk now"
        places = {row.where for row in shoal.memory().objects}
        assert "disk" in places and shoal.memory().stores[0].on_disk >= 1_000_000


@pytest.mark.skipif(os.getuid() != 0, reason="only root can mount")
def test_a_container_with_little_shared_memory_stores_large_values():
    script = """
import numpy as np, shoal
with shoal.init(num_cpus=1):
    ref = shoal.put(np.ones(100_000_000, np.uint8))
    print(shoal.get(shoal.remote(lambda array: int(array.sum())).remote(ref)))
"""
    command = 'mount -t tmpfs -o size=64m tmpfs /dev/shm && exec "$@"'
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", command, "-", sys.executable, "-c", script],
        capture_output=True,
        text=True,
        timeout=60,
    )
    if "mount:" in done.stderr:
        pytest.skip("mounts are not allowed here")
    assert done.stdout == "100000000\n", done.stderr


def test_inline_has_no_store():
    with shoal.init(inline=True):
        ref = shoal.put(ones(400_000))
        report = shoal.memory()
        assert report.stores == ()
        (row,) = (row for row in report.objects if row.object_id == ref.id)
        assert row.nbytes >= 400_000 and row.where == "inline"
