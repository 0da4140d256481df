"""``from_dask``, and what is behind ``ObjectRef.to_dask``: values of Dask's as ours, and of ours as Dask's."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from shoal.api.session import call_at_end, owner_or_init
from shoal.launch.dask_interop import DaskLink, store_here
from shoal.model.errors import NotInitializedError
from shoal.runtime.base_owner import BaseOwner
from shoal.runtime.inline import InlineOwner
from shoal.runtime.owner import Owner
from shoal.runtime.refs import ObjectRef

if TYPE_CHECKING:
    from distributed import Client, Future

_lock = threading.Lock()
#: The runtime of this process and its line to Dask; one after the other, as sessions are.
_current: tuple[BaseOwner, DaskLink] | None = None


def from_dask(collection: Any) -> ObjectRef | list[ObjectRef]:
    """Make refs of what Dask has or is to compute; pass them on as any others.

    Returns at once. As soon as a Dask worker has a part, it puts it into the object store of its node and says where
    it is: nothing passes through this process, unless it is small (up to 100 KiB). The object is this process's, and
    goes with the last ref; Dask keeps a copy of its own as long as anybody holds the future or persisted collection.

    Parameters
    ----------
    collection
        Of the Dask cluster that shoal uses:

        - a ``distributed.Future``,
        - a list of futures and ``dask.delayed`` values,
        - a Dask dataframe, series, bag, array, ``dask.delayed`` or other collection, persisted or not. One that is not
          is computed on the cluster, once, and Dask forgets each part when it is stored.

    Returns
    -------
    ObjectRef or list of ObjectRef
        One ref for a future. For anything else a list: one ref for each item, partition (a list for a bag's) or block,
        in order; an array's blocks in C order, the last axis fastest. What has one value gives a list of one ref.

    Raises
    ------
    TypeError
        *collection* is none of these.
    OptionError
        It belongs to another Dask cluster, or to a client that is closed.

    Notes
    -----
    Whatever happens to a part later is the error of its ref, and of no other: the exception that its Dask task has
    failed with, of its own type and with its frames; ``TaskCancelledError`` if Dask has cancelled it;
    ``SerializationError`` if it cannot be pickled. ``shoal.cancel`` lets go of what Dask has not made: it is not made,
    unless somebody else wants it. A value may contain refs if the Dask task that made it had a session of its own.

    With an asynchronous Dask client, ``await`` the refs: its event loop brings the news.

    With ``shoal.init(inline=True)`` Dask's threaded scheduler computes the collection here, before this returns; if
    a part fails, that is the error of all refs.

    Examples
    --------
    >>> import dask.array, shoal
    >>> @shoal.remote
    ... def total(block):
    ...     return int(block.sum())
    >>> with shoal.init(num_cpus=1):
    ...     blocks = shoal.from_dask(dask.array.ones((4, 4), chunks=(2, 4)))
    ...     shoal.get([total.remote(block) for block in blocks])
    [8, 8]
    """
    owner = owner_or_init()
    if isinstance(owner, InlineOwner):
        return store_here(owner, collection)
    return _link_of(owner).store(collection)


def to_dask(ref: ObjectRef, client: Client | None) -> Future[Any]:
    """See :meth:`shoal.ObjectRef.to_dask`."""
    owner = ref._owner
    owner.is_ready(ref)  # refuses refs of a session that has ended
    if isinstance(owner, InlineOwner):
        raise NotInitializedError(
            "`to_dask` needs a Dask cluster, and with `shoal.init(inline=True)` there is none. Use `shoal.get(ref)`."
        )
    return _link_of(owner).load(ref, client)


def _link_of(owner: BaseOwner) -> DaskLink:
    """Return an owner's line to Dask. A driver's ends with its session, an executor's with its process."""
    global _current
    assert isinstance(owner, Owner)
    owner.check_usable()
    with _lock:
        if _current is None or _current[0] is not owner:
            link = DaskLink(owner)
            call_at_end(link.close)
            _current = (owner, link)
        return _current[1]


__all__ = ["from_dask"]
