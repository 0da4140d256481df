"""What has been fitted, in a directory: one SQLite file, and large models as files beside it.

A hundred thousand models are rows of a table, not files. What a chunk of fits has brought is written in one
transaction, so that whatever ends the driver, the catalog is whole and lacks at most what was under way. Models are
pickled: open catalogs that you or people you trust have written.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from shoal_ml.train.many.errors import CatalogError

#: The layout; others are refused.
VERSION = 1
#: Bytes above which a model is a file of its own.
MAX_BLOB = 1 << 20
FILE, MODELS, LOCK = "catalog.sqlite", "models", "lock"

_SCHEMA = """
CREATE TABLE about (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE fits (
    fit_id TEXT PRIMARY KEY, key TEXT NOT NULL, trainer TEXT NOT NULL, params TEXT NOT NULL, state TEXT NOT NULL,
    metrics TEXT NOT NULL, seconds REAL NOT NULL, nbytes INTEGER NOT NULL, code_hash TEXT NOT NULL,
    data_hash TEXT NOT NULL, attempts INTEGER NOT NULL, error TEXT NOT NULL, traceback TEXT NOT NULL,
    ended REAL NOT NULL
) WITHOUT ROWID;
CREATE INDEX fits_by_key ON fits (key);
CREATE TABLE models (fit_id TEXT PRIMARY KEY, pickled BLOB NOT NULL) WITHOUT ROWID;
"""
DONE, FAILED = "done", "failed"


class FitRow(NamedTuple):
    """One fit, as the catalog has it. *ended* is in Unix seconds; *params* and *metrics* are mappings."""

    fit_id: str
    key: str
    trainer: str
    params: dict[str, Any]
    state: str
    metrics: dict[str, float]
    seconds: float
    nbytes: int
    code_hash: str
    data_hash: str
    attempts: int
    error: str = ""
    traceback: str = ""
    ended: float = 0.0


class Catalog:
    """A catalog on disk. May be used by several threads; written by one process at a time (:meth:`writing`)."""

    def __init__(self, directory: str | os.PathLike[str], *, create: bool = False) -> None:
        """Open the catalog in *directory*; with *create*, make one if there is none.

        Raises
        ------
        CatalogError
            There is none, it is damaged, or its layout is another one.
        """
        self.directory = Path(directory).expanduser().absolute()
        path = self.directory / FILE
        if not path.exists() and not create:
            raise CatalogError(f"`{self.directory}` holds no catalog of models.")
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = threading.Lock()
        self._connection = sqlite3.connect(path, timeout=30.0, isolation_level=None, check_same_thread=False)
        try:
            self._open(create)
        except (sqlite3.DatabaseError, ValueError) as error:
            self._connection.close()
            raise CatalogError(f"`{path}` cannot be read as a catalog of models: {error}.") from error

    def _open(self, create: bool) -> None:
        os.chmod(self.directory / FILE, 0o600)
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute("PRAGMA synchronous=NORMAL")
        found = self._connection.execute("SELECT name FROM sqlite_master WHERE name='about'").fetchone()
        if found is None:
            if not create:
                raise ValueError("it has no tables of ours")
            with self._transaction():
                for statement in filter(str.strip, _SCHEMA.split(";")):
                    self._connection.execute(statement)
                self._connection.execute("INSERT INTO about VALUES ('version', ?)", (str(VERSION),))
        version = self._connection.execute("SELECT value FROM about WHERE name='version'").fetchone()
        if version is None or version[0] != str(VERSION):
            raise ValueError(f"its layout is version {version and version[0]}, this shoal reads {VERSION}")

    def close(self) -> None:
        """Close the file; harmless the second time."""
        self._connection.close()

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Be the one who writes.

        Raises
        ------
        CatalogError
            Another run is writing it.
        """
        descriptor = os.open(self.directory / LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise CatalogError(f"Another run is writing the catalog in `{self.directory}`.") from None
            yield
        finally:
            os.close(descriptor)

    # -- what it is about ------------------------------------------------------------------------------------------

    def about(self, name: str) -> Any:
        """Return what was noted as *name* (JSON); None if nothing was."""
        with self._lock:
            row = self._connection.execute("SELECT value FROM about WHERE name=?", (name,)).fetchone()
        return None if row is None else json.loads(row[0])

    def set_about(self, values: Mapping[str, Any]) -> None:
        """Note some values (JSON)."""
        rows = [(name, json.dumps(value)) for name, value in values.items()]
        with self._lock, self._transaction():
            self._connection.executemany("INSERT OR REPLACE INTO about VALUES (?, ?)", rows)

    # -- fits ------------------------------------------------------------------------------------------------------

    def add(self, rows: Iterable[tuple[FitRow, bytes | None]]) -> None:
        """Write fits with their pickled models, all or none; each in the place of what was known of it before."""
        fits, blobs, gone = [], [], []
        for row, pickled in rows:
            fits.append(row._replace(params=_json(row.params), metrics=_json(row.metrics)))  # type: ignore[arg-type]
            gone.append((row.fit_id,))
            if pickled is None:
                continue
            if len(pickled) > MAX_BLOB:
                self._write_file(row.fit_id, pickled)
            else:
                blobs.append((row.fit_id, pickled))
        with self._lock, self._transaction():
            self._connection.executemany("DELETE FROM models WHERE fit_id=?", gone)
            self._connection.executemany(f"INSERT OR REPLACE INTO fits VALUES ({','.join('?' * 14)})", fits)
            self._connection.executemany("INSERT INTO models VALUES (?, ?)", blobs)

    def rows(self, state: str = "") -> list[FitRow]:
        """Return all fits, or those in one state, by key."""
        where, values = ("WHERE state=?", (state,)) if state else ("", ())
        return self._select(f"{where} ORDER BY key, trainer, params", values)

    def rows_of(self, key: str) -> list[FitRow]:
        """Return the fits of one (encoded) key."""
        return self._select("WHERE key=? ORDER BY trainer, params", (key,))

    def hashes(self) -> dict[str, tuple[str, str]]:
        """Return what was done: for each fit's id the hashes of its code and of its data."""
        with self._lock:
            found = self._connection.execute("SELECT fit_id, code_hash, data_hash FROM fits WHERE state=?", (DONE,))
            return {fit_id: (code, data) for fit_id, code, data in found}

    def count(self, state: str = "") -> int:
        """Return how many fits there are, in all or in one state."""
        where, values = ("WHERE state=?", (state,)) if state else ("", ())
        with self._lock:
            return int(self._connection.execute(f"SELECT count(*) FROM fits {where}", values).fetchone()[0])

    def pickled(self, fit_id: str) -> bytes:
        """Return a model as it was pickled.

        Raises
        ------
        CatalogError
            It is not there.
        """
        with self._lock:
            row = self._connection.execute("SELECT pickled FROM models WHERE fit_id=?", (fit_id,)).fetchone()
        if row is not None:
            return bytes(row[0])
        try:
            return self._file(fit_id).read_bytes()
        except OSError as error:
            raise CatalogError(f"The model `{fit_id}` is not in `{self.directory}` any more: {error}.") from None

    def _select(self, clause: str, values: tuple[str, ...]) -> list[FitRow]:
        with self._lock:
            found = self._connection.execute(f"SELECT * FROM fits {clause}", values).fetchall()
        rows = map(FitRow._make, found)
        return [row._replace(params=json.loads(str(row.params)), metrics=json.loads(str(row.metrics))) for row in rows]

    def _file(self, fit_id: str) -> Path:
        return self.directory / MODELS / f"{fit_id}.pkl"

    def _write_file(self, fit_id: str, pickled: bytes) -> None:
        path = self._file(fit_id)
        path.parent.mkdir(mode=0o700, exist_ok=True)
        unfinished = path.with_suffix(f".{os.getpid()}.tmp")
        try:
            with open(os.open(unfinished, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "wb") as file:
                file.write(pickled)
                file.flush()
                os.fsync(file.fileno())
            os.replace(unfinished, path)
        finally:
            unfinished.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, separators=(",", ":"), sort_keys=True)
