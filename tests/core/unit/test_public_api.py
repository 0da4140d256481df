"""What users may rely on, and what `import shoal` costs them. Growth is a deliberate change of this file."""

from __future__ import annotations

import subprocess
import sys

import shoal
import shoal.errors
import shoal.output

HEAVY = ("distributed", "dask", "numpy", "torch", "pandas", "IPython", "ipykernel", "jupyter_server", "tornado")


def test_public_names() -> None:
    assert sorted(shoal.__all__) == [
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
    assert sorted(shoal.output.__all__) == [
        "OutputEvent",
        "cell_name",
        "make_cell_tag",
        "publish_display",
        "set_cell_source",
        "set_listener",
        "set_sink",
    ]
    assert sorted(shoal.errors.__all__) == [
        "ActorDiedError",
        "ActorUnavailableError",
        "ClusterLostError",
        "ConnectError",
        "ExecutorCrashedError",
        "GetTimeoutError",
        "InfeasibleError",
        "NameTakenError",
        "NestingError",
        "NotInitializedError",
        "ObjectLostError",
        "ObjectStoreFullError",
        "OptionError",
        "OutOfMemoryError",
        "OwnerDiedError",
        "PendingCallsLimitExceeded",
        "PlacementGroupError",
        "RemoteError",
        "SerializationError",
        "ShoalError",
        "ShoalMissingError",
        "TaskCancelledError",
        "TaskTimeoutError",
        "VersionMismatchError",
    ]


def test_public_things_are_there_and_explained() -> None:
    for name in sorted(set(shoal.__all__) - {"__version__"}):
        assert getattr(shoal, name).__doc__, name
    for name in shoal.errors.__all__:
        assert getattr(shoal.errors, name).__doc__, name


def test_importing_shoal_imports_nothing_heavy() -> None:
    code = f"import sys, shoal; print([name for name in {HEAVY!r} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert result.stdout == "[]\n"
    assert result.stderr == ""
