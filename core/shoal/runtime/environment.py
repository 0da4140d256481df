"""What a node's administrator says: every ``SHOAL_…`` variable that concerns a node, checked when it is read."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from shoal.model.errors import OptionError

#: The smallest store, in bytes.
LEAST_STORE = 1 << 20
#: Where shared memory is, and the bytes of it that are worth using.
SHARED_MEMORY, LEAST_SHARED = Path("/dev/shm"), 256 << 20
#: Seconds of silence below which a process that is merely busy would be given up.
LEAST_SILENCE = 0.5


@dataclasses.dataclass(frozen=True, slots=True)
class NodeSettings:
    """What the environment says about this node; None where it says nothing and the machine decides."""

    #: Where values that are shared are kept (``SHOAL_STORE_DIR``), and how many bytes of them (``SHOAL_STORE_MEMORY``).
    store_directory: Path | None = None
    store_memory: int | None = None
    #: Where those go that do not fit (``SHOAL_SPILL_DIR``), and how many bytes of them (``SHOAL_SPILL_LIMIT``).
    spill_directory: Path | None = None
    spill_limit: int | None = None
    #: The share of the memory above which a process is ended (``SHOAL_MEMORY_THRESHOLD``); 0 and 1 turn that off.
    memory_threshold: float | None = None
    #: The bytes that executors and store may use together (``SHOAL_MEMORY_LIMIT``); 0 for what the machine has.
    memory_limit: int | None = None
    #: The seconds after which a silent peer is given up (``SHOAL_SILENCE``).
    silence: float = 60.0
    #: What ``label_selector`` finds (``SHOAL_LABELS``, as ``key=value,key=value``).
    labels: Mapping[str, str] = dataclasses.field(default_factory=dict)
    #: Whether py-spy may be used, if it is there (``SHOAL_PY_SPY``: 0 or 1).
    py_spy: bool = True


def node_settings(environ: Mapping[str, str] = os.environ) -> NodeSettings:
    """Return what the environment says about this node.

    Raises
    ------
    OptionError
        It says what cannot be; the message names the variable.
    """
    silence = _number(environ, "SHOAL_SILENCE", LEAST_SILENCE, "seconds")
    return NodeSettings(
        _writable(environ, "SHOAL_STORE_DIR"),
        _nbytes(environ, "SHOAL_STORE_MEMORY", LEAST_STORE),
        _directory(environ, "SHOAL_SPILL_DIR"),
        _nbytes(environ, "SHOAL_SPILL_LIMIT", 0),
        _share(environ, "SHOAL_MEMORY_THRESHOLD"),
        _nbytes(environ, "SHOAL_MEMORY_LIMIT", 0),
        NodeSettings().silence if silence is None else silence,
        _labels(environ, "SHOAL_LABELS"),
        _flag(environ, "SHOAL_PY_SPY", NodeSettings().py_spy),
    )


def dashboard_pages_allowed(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether a Dask scheduler with TLS may show our pages on its dashboard, which has none of that.

    Raises
    ------
    OptionError
        ``SHOAL_DASHBOARD_PAGES`` is neither 0 nor 1.
    """
    text = environ.get("SHOAL_DASHBOARD_PAGES") or "0"
    if text not in ("0", "1"):
        raise OptionError(f"The environment variable `SHOAL_DASHBOARD_PAGES` must be 0 or 1, not `{text}`.")
    return text == "1"


def silence_limit() -> float:
    """Return the seconds after which a silent peer is given up: all that processes outside of nodes are told."""
    found = _number(os.environ, "SHOAL_SILENCE", LEAST_SILENCE, "seconds")
    return NodeSettings().silence if found is None else found


def store_root() -> Path:
    """Where stores live: as the environment says, else shared memory if there is any, else the temporary directory.

    Containers have 64 MiB of shared memory unless somebody asked for more. A store in the temporary directory holds
    more than that, and what is read and written there stays in memory as long as there is enough of it.
    """
    chosen = _directory(os.environ, "SHOAL_STORE_DIR")
    if chosen is not None:
        return chosen
    elsewhere = Path(tempfile.gettempdir())
    if not os.access(SHARED_MEMORY, os.W_OK):
        return elsewhere
    size = shutil.disk_usage(SHARED_MEMORY).total
    return elsewhere if size < LEAST_SHARED and shutil.disk_usage(elsewhere).free > size else SHARED_MEMORY


def spill_root() -> Path:
    """Where stores keep what does not fit into memory: as the environment says, else the temporary directory."""
    return _directory(os.environ, "SHOAL_SPILL_DIR") or Path(tempfile.gettempdir())


def event_log_root(environ: Mapping[str, str] = os.environ) -> Path | None:
    """Return where the logs of clusters are, as ``SHOAL_EVENT_LOG`` says; None if it is ``0``: there is to be no log.

    Raises
    ------
    OptionError
        It names what cannot be a directory.
    """
    text = environ.get("SHOAL_EVENT_LOG", "")
    if text == "0":
        return None
    if text in ("", "1"):
        from jupyter_core.paths import jupyter_data_dir

        return Path(jupyter_data_dir()) / "shoal" / "logs"
    directory = Path(text)
    if not directory.is_absolute() or (directory.exists() and not directory.is_dir()):
        raise OptionError(
            f"The environment variable `SHOAL_EVENT_LOG` must be `0` or the whole path of a directory, not `{text}`."
        )
    return directory


def _number(environ: Mapping[str, str], name: str, least: float, unit: str) -> float | None:
    text = environ.get(name)
    if not text:
        return None
    with contextlib.suppress(ValueError):
        number = float(text)
        if math.isfinite(number) and number >= least:
            return number
    raise OptionError(f"The environment variable `{name}` must be a number of {unit} from {least:,} up, not `{text}`.")


def _nbytes(environ: Mapping[str, str], name: str, least: int) -> int | None:
    number = _number(environ, name, least, "bytes")
    return None if number is None else int(number)


def _flag(environ: Mapping[str, str], name: str, default: bool) -> bool:
    text = environ.get(name)
    if text in (None, "", "0", "1"):
        return text == "1" if text else default
    raise OptionError(f"The environment variable `{name}` must be 0 or 1, not `{text}`.")


def _share(environ: Mapping[str, str], name: str) -> float | None:
    text = environ.get(name)
    if not text:
        return None
    with contextlib.suppress(ValueError):
        if 0 <= (share := float(text)) <= 1:
            return share
    raise OptionError(f"The environment variable `{name}` must be a share between 0 and 1, not `{text}`.")


def _directory(environ: Mapping[str, str], name: str) -> Path | None:
    text = environ.get(name)
    return Path(text) if text else None


def _writable(environ: Mapping[str, str], name: str) -> Path | None:
    directory = _directory(environ, name)
    if directory is None or (directory.is_dir() and os.access(directory, os.W_OK)):
        return directory
    raise OptionError(
        f"The environment variable `{name}` must name a directory that can be written to, not `{directory}`."
    )


def _labels(environ: Mapping[str, str], name: str) -> dict[str, str]:
    labels = {}
    for part in environ.get(name, "").split(","):
        if part.strip():
            key, equals, value = part.partition("=")
            if not equals or not key.strip():
                raise OptionError(
                    f"The environment variable `{name}` must look like `zone=a,disk=ssd`; `{part}` does not."
                )
            labels[key.strip()] = value.strip()
    return labels
