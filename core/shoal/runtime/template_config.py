"""What a node agent tells its template process at the start."""

from __future__ import annotations

import base64
import dataclasses
import pickle

from shoal.runtime.store import Store
from shoal.transport.comms import Security


@dataclasses.dataclass(frozen=True)
class TemplateConfig:
    """What the executors of a node have in common."""

    node_id: str
    agent: str
    controller: str
    host: str
    security: Security
    store: Store
    #: Directory of the executors' log files.
    logs: str
    #: Further directories to remove when the node ends.
    cleanup: tuple[str, ...]
    sys_path: tuple[str, ...]

    def to_line(self) -> bytes:
        return base64.b64encode(pickle.dumps(self)) + b"\n"

    @staticmethod
    def from_line(line: bytes) -> TemplateConfig:
        config = pickle.loads(base64.b64decode(line))
        assert isinstance(config, TemplateConfig)
        return config
