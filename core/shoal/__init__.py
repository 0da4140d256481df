"""shoal makes a JupyterLab notebook the control room of a cluster.

>>> import shoal
>>> @shoal.remote
... def double(x):
...     return 2 * x
>>> with shoal.init(num_cpus=1):
...     shoal.get(double.remote(21))
42
"""

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

__all__ = [
    "ActorClass",
    "ActorHandle",
    "Cluster",
    "NodeAffinity",
    "ObjectRef",
    "ObjectRefGenerator",
    "PlacementGroup",
    "RemoteFunction",
    "RuntimeContext",
    "__version__",
    "cancel",
    "errors",
    "exit_actor",
    "get",
    "get_actor",
    "get_runtime_context",
    "init",
    "is_initialized",
    "kill",
    "load_ipython_extension",
    "method",
    "output",
    "placement_group",
    "put",
    "remote",
    "remove_placement_group",
    "shutdown",
    "snapshot",
    "stop",
    "unload_ipython_extension",
    "wait",
]
