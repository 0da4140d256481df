"""``keep`` and ``find_kept``: what an actor writes down at the controller, to read it when it has been restarted."""

from __future__ import annotations

from shoal.api.session import owner_or_init
from shoal.model.errors import OptionError


def keep(key: str, value: bytes) -> None:
    """Have the controller remember *value* under *key*, instead of what it had there; empty bytes forget it.

    It lives as long as the cluster's scheduler, whatever becomes of the process that wrote it. Keys are shared by
    everybody in the cluster: begin them with what they belong to. Waits for the controller, a millisecond or so.

    Raises
    ------
    OptionError
        The value is too large: 16 MiB for one, 128 MiB for all. Put large values into the object store.
    """
    from shoal.model.messages import Ask

    refused = owner_or_init().ask(lambda request: Ask(request, "keep", (key, value)))
    if refused:
        raise OptionError(f"The controller does not keep this: {refused}.", option="value")


def find_kept(key: str) -> bytes:
    """Return what :func:`keep` has written under *key*; empty bytes if nothing was, or if there was no such key."""
    from shoal.model.messages import Ask

    return bytes(owner_or_init().ask(lambda request: Ask(request, "kept", (key,))) or b"")


__all__ = ["find_kept", "keep"]
