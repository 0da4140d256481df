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
from shoal.api.ipython import load_ipython_extension, unload_ipython_extension
from shoal.api.remote import ActorClass, ActorHandle, RemoteFunction, kill, remote
from shoal.api.session import Cluster, init, is_initialized, shutdown, snapshot
from shoal.api.values import cancel, get, put, wait
from shoal.runtime.refs import ObjectRef

__all__ = [
    "ActorClass",
    "ActorHandle",
    "Cluster",
    "ObjectRef",
    "RemoteFunction",
    "__version__",
    "cancel",
    "errors",
    "get",
    "init",
    "is_initialized",
    "kill",
    "load_ipython_extension",
    "output",
    "put",
    "remote",
    "shutdown",
    "snapshot",
    "unload_ipython_extension",
    "wait",
]
