"""joblib, and with it scikit-learn, on the cluster: ``register_joblib``."""

from __future__ import annotations

from typing import Any

from shoal.api.futures import Executor
from shoal.api.nodes import cluster_resources
from shoal.api.values import put
from shoal.runtime.refs import ObjectRef

#: Bytes from which on an argument goes through the store, once for all calls that have it.
LARGE = 1 << 20


def register_joblib(name: str = "shoal") -> None:
    """Make *name* a backend of joblib.

    Raises
    ------
    ModuleNotFoundError
        joblib is not installed.

    Examples
    --------
    >>> import joblib, shoal
    >>> shoal.register_joblib()
    >>> with shoal.init(num_cpus=1), joblib.parallel_config(backend="shoal"):
    ...     joblib.Parallel(n_jobs=2)(joblib.delayed(pow)(x, 2) for x in range(4))
    [0, 1, 4, 9]
    """
    import joblib
    from joblib._parallel_backends import AutoBatchingMixin, SequentialBackend
    from joblib.parallel import ParallelBackendBase

    class ShoalBackend(AutoBatchingMixin, ParallelBackendBase):  # type: ignore[misc]
        """joblib's batches as tasks."""

        supports_retrieve_callback = True
        default_n_jobs = -1

        def __init__(self, nesting_level: int | None = None, **options: Any) -> None:
            super().__init__(nesting_level=nesting_level)
            self._options = options
            self._executor: Executor | None = None
            self._futures: set[Any] = set()
            #: Large arguments of this call, by identity; the arguments themselves keep the identity theirs.
            self._stored: dict[int, tuple[Any, ObjectRef]] = {}

        def effective_n_jobs(self, n_jobs: int) -> int:
            if n_jobs == 0:
                raise ValueError("n_jobs == 0 in Parallel has no meaning")
            num_cpus = max(1, int(cluster_resources().get("num_cpus", 1)))
            return num_cpus + 1 + n_jobs if -num_cpus <= n_jobs < 0 else max(1, n_jobs)

        def configure(self, n_jobs: int = 1, parallel: Any = None, **options: Any) -> int:
            self.parallel = parallel
            count = self.effective_n_jobs(n_jobs)
            self._executor = Executor(count, **self._options)
            return count

        def submit(self, func: Any, callback: Any = None) -> Any:
            assert self._executor is not None
            future = self._executor.submit(_call_batch, *self._without_large_arguments(func))
            self._futures.add(future)
            future.add_done_callback(self._futures.discard)
            if callback is not None:
                future.add_done_callback(callback)
            return future

        def retrieve_result_callback(self, out: Any) -> Any:
            return out.result()

        def abort_everything(self, ensure_ready: bool = True) -> None:
            for future in list(self._futures):
                future.cancel()

        def stop_call(self) -> None:
            self._stored.clear()

        def terminate(self) -> None:
            self._stored.clear()
            if self._executor is not None:
                self._executor.shutdown(wait=False, cancel_futures=True)

        def get_nested_backend(self) -> Any:
            # An executor has one CPU: what is parallel inside runs one after the other.
            return SequentialBackend(nesting_level=(self.nesting_level or 0) + 1), None

        def _without_large_arguments(self, batch: Any) -> tuple[Any, ...]:
            """Return the batch, and the refs of the arguments that were taken out of it."""
            refs: list[ObjectRef] = []
            items = [
                (function, [self._swap(arg, refs) for arg in args], {k: self._swap(v, refs) for k, v in kwargs.items()})
                for function, args, kwargs in batch.items
            ]
            return items, (batch._backend, batch._n_jobs), *refs

        def _swap(self, value: Any, refs: list[ObjectRef]) -> Any:
            if getattr(value, "nbytes", 0) < LARGE:
                return value
            stored = self._stored.get(id(value))
            if stored is None:
                stored = self._stored[id(value)] = value, put(value)
            refs.append(stored[1])
            return _Slot(len(refs) - 1)

    joblib.register_parallel_backend(name, ShoalBackend)


class _Slot:
    """Stands for the *index*-th large argument of a batch."""

    def __init__(self, index: int) -> None:
        self.index = index


def _call_batch(items: list[tuple[Any, list[Any], dict[str, Any]]], nested: Any, *large: Any) -> list[Any]:
    from joblib.parallel import parallel_config

    def fill(value: Any) -> Any:
        return large[value.index] if isinstance(value, _Slot) else value

    backend, n_jobs = nested
    with parallel_config(backend=backend, n_jobs=n_jobs):
        return [
            function(*map(fill, args), **{name: fill(value) for name, value in kwargs.items()})
            for function, args, kwargs in items
        ]


__all__ = ["register_joblib"]
