"""shoal makes a JupyterLab notebook the control room of a cluster.

>>> import shoal
>>> @shoal.remote
... def double(x):
...     return 2 * x
>>> with shoal.init(num_cpus=1):
...     shoal.get(double.remote(21))
42
"""

import importlib
from typing import TYPE_CHECKING

from shoal import errors, output
from shoal._version import __version__
from shoal.api.actors import ActorHandle, exit_actor, get_actor, kill, method, stop
from shoal.api.ipython import load_ipython_extension, unload_ipython_extension
from shoal.api.placement import NodeAffinity, PlacementGroup, placement_group, remove_placement_group
from shoal.api.remote import ActorClass, RemoteFunction, remote
from shoal.api.runtime_context import RuntimeContext, get_runtime_context
from shoal.api.session import Cluster, init, is_initialized, shutdown, snapshot
from shoal.api.values import cancel, get, put, wait
from shoal.runtime.refs import ObjectRef
from shoal.runtime.yields import ObjectRefGenerator

if TYPE_CHECKING:
    from shoal import metrics, state
    from shoal.api.actor_pool import ActorPool
    from shoal.api.dask_interop import from_dask
    from shoal.api.distributed_queue import Queue
    from shoal.api.futures import Executor
    from shoal.api.iteration import as_completed, map
    from shoal.api.joblib_backend import register_joblib
    from shoal.api.logs import logs
    from shoal.api.memory import MemoryReport, memory
    from shoal.api.nodes import Node, available_resources, cluster_resources, nodes
    from shoal.api.plotting import plot
    from shoal.api.probing import profile, stack
    from shoal.api.process_pool import Pool
    from shoal.api.progress import CellProgress, progress
    from shoal.api.why import why
    from shoal.model.explanation import Explanation

#: Imported when they are first used: `import shoal` is quick for everybody.
_LATE = {
    "ActorPool": "shoal.api.actor_pool",
    "from_dask": "shoal.api.dask_interop",
    "Queue": "shoal.api.distributed_queue",
    "Executor": "shoal.api.futures",
    "as_completed": "shoal.api.iteration",
    "map": "shoal.api.iteration",
    "register_joblib": "shoal.api.joblib_backend",
    "logs": "shoal.api.logs",
    "MemoryReport": "shoal.api.memory",
    "memory": "shoal.api.memory",
    "Node": "shoal.api.nodes",
    "available_resources": "shoal.api.nodes",
    "cluster_resources": "shoal.api.nodes",
    "nodes": "shoal.api.nodes",
    "plot": "shoal.api.plotting",
    "profile": "shoal.api.probing",
    "stack": "shoal.api.probing",
    "Pool": "shoal.api.process_pool",
    "CellProgress": "shoal.api.progress",
    "progress": "shoal.api.progress",
    "why": "shoal.api.why",
    "Explanation": "shoal.model.explanation",
}
#: Modules that are imported when they are first used.
_LATE_MODULES = ("metrics", "state")


def __getattr__(name: str) -> object:
    if name in _LATE_MODULES:
        return importlib.import_module(f"shoal.{name}")
    if name not in _LATE:
        raise AttributeError(f"module `shoal` has no attribute `{name}`")
    value = globals()[name] = getattr(importlib.import_module(_LATE[name]), name)
    return value


__all__ = [
    "ActorClass",
    "ActorHandle",
    "ActorPool",
    "CellProgress",
    "Cluster",
    "Executor",
    "Explanation",
    "MemoryReport",
    "Node",
    "NodeAffinity",
    "ObjectRef",
    "ObjectRefGenerator",
    "PlacementGroup",
    "Pool",
    "Queue",
    "RemoteFunction",
    "RuntimeContext",
    "__version__",
    "as_completed",
    "available_resources",
    "cancel",
    "cluster_resources",
    "errors",
    "exit_actor",
    "from_dask",
    "get",
    "get_actor",
    "get_runtime_context",
    "init",
    "is_initialized",
    "kill",
    "load_ipython_extension",
    "logs",
    "map",
    "memory",
    "method",
    "metrics",
    "nodes",
    "output",
    "placement_group",
    "plot",
    "profile",
    "progress",
    "put",
    "register_joblib",
    "remote",
    "remove_placement_group",
    "shutdown",
    "snapshot",
    "stack",
    "state",
    "stop",
    "unload_ipython_extension",
    "wait",
    "why",
]
