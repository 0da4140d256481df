"""Two machines on one: network namespaces with a wire between them, and each with a shared memory of its own."""

from __future__ import annotations

import contextlib
import os
import shlex
import subprocess
from collections.abc import Iterator, Sequence
from typing import NamedTuple


def on_machine(namespace: str, command: Sequence[str]) -> list[str]:
    """Return what runs *command* in that network, with a shared memory that only it and its children see."""
    inner = f"mount -t tmpfs tmpfs /dev/shm && exec {shlex.join(command)}"
    return ["ip", "netns", "exec", namespace, "unshare", "--mount", "sh", "-c", inner]


class Networks(NamedTuple):
    """The namespaces and the addresses in them."""

    near: str
    far: str
    near_address: str
    far_address: str


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True, timeout=20)


@contextlib.contextmanager
def two_networks() -> Iterator[Networks]:
    """Make them, and remove them.

    Raises
    ------
    OSError
        They cannot be made here: that takes root, on Linux.
    """
    pid = os.getpid()
    made = Networks(f"shoal-near-{pid}", f"shoal-far-{pid}", "10.231.97.1", "10.231.97.2")
    wires = {made.near: f"sn{pid}", made.far: f"sf{pid}"}
    addresses = {made.near: made.near_address, made.far: made.far_address}
    with contextlib.ExitStack() as stack:
        try:
            for name in wires:
                ip("netns", "add", name)
                stack.callback(subprocess.run, ["ip", "netns", "del", name], capture_output=True, timeout=20)
            ip("link", "add", wires[made.near], "netns", made.near, "type", "veth",
               "peer", "name", wires[made.far], "netns", made.far)  # fmt: skip
            for name, wire in wires.items():
                ip("-n", name, "addr", "add", f"{addresses[name]}/30", "dev", wire)
                ip("-n", name, "link", "set", wire, "up")
                ip("-n", name, "link", "set", "lo", "up")
        except subprocess.CalledProcessError as error:
            raise OSError(error.stderr.strip()) from None
        yield made
