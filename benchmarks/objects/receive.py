"""The far end of the baseline: counts the bytes that come over a comm of Dask's, and says how many at the end."""

from __future__ import annotations

import asyncio
import sys

from distributed.comm import listen
from distributed.security import Security


async def count(comm) -> None:
    nbytes = 0
    while True:
        frame = await comm.read()
        if isinstance(frame, bytes):
            await comm.write(nbytes)
            await comm.close()
            return
        nbytes += len(frame[1].frames[0])


async def main(host: str, port: str, ca: str, cert: str, key: str) -> None:
    security = Security(require_encryption=True, tls_ca_file=ca, tls_worker_cert=cert, tls_worker_key=key)
    listener = await listen(f"tls://{host}:{port}", count, deserialize=False, **security.get_listen_args("worker"))
    await asyncio.to_thread(sys.stdin.read)  # until who started us ends
    await listener.stop()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
