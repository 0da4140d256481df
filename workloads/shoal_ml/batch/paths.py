"""Files: what a path, a glob, a directory or an fsspec URL stands for, and files that appear when they are whole."""

from __future__ import annotations

import contextlib
import dataclasses
import glob
import os
import secrets
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from shoal.model.suggest import did_you_mean
from shoal_ml.batch.errors import ReadError, WriteError
from shoal_ml.batch.sources.source import fingerprint

Paths = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]


@dataclasses.dataclass(frozen=True, slots=True)
class File:
    """One file as it was when it was found."""

    path: str
    nbytes: int
    #: What changes when the file does.
    version: str = ""

    @property
    def key(self) -> str:
        """The same as long as the file has not changed."""
        return f"{os.path.basename(self.path)}#{fingerprint(self.path, self.nbytes, self.version)}"


def is_url(path: str) -> bool:
    """Whether a path is for fsspec: ``s3://…``, ``memory://…``."""
    return "://" in path


def find_files(paths: Paths, suffixes: Sequence[str] = ()) -> list[File]:
    """Return the files that *paths* stand for, each list and directory in the order of names.

    Parameters
    ----------
    paths
        A file, a directory (with all below it), a glob, an fsspec URL, or a list of these.
    suffixes
        What files of a directory must end with, such as ``.parquet``; files named one by one may end as they like.

    Raises
    ------
    ReadError
        A path is not there, or stands for no file.
    """
    given = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
    found: list[File] = []
    for path in given:
        text = os.fspath(path)
        files = list(_find_url(text, suffixes) if is_url(text) else _find_local(text, suffixes))
        if not files:
            raise ReadError(_nothing_at(text, suffixes), path=text)
        found += files
    return found


def _find_local(path: str, suffixes: Sequence[str]) -> Iterator[File]:
    path = os.path.expanduser(path)
    if os.path.isfile(path):
        yield _file_at(path)
    elif os.path.isdir(path):
        for folder, folders, names in os.walk(path):
            folders.sort()
            for name in sorted(names):
                if _is_wanted(name, suffixes):
                    yield _file_at(os.path.join(folder, name))
    elif glob.has_magic(path):
        for name in sorted(glob.glob(path, recursive=True)):
            if os.path.isfile(name):
                yield _file_at(name)


def _find_url(url: str, suffixes: Sequence[str]) -> Iterator[File]:
    import fsspec

    fs, path = fsspec.core.url_to_fs(url)
    try:
        if glob.has_magic(path):
            names = fs.glob(path)
        else:
            names = fs.find(path) if fs.isdir(path) else [path] if fs.exists(path) else []
            names = [name for name in names if name == path or _is_wanted(os.path.basename(name), suffixes)]
        for name in sorted(names):
            about = fs.info(name)
            version = about.get("ETag") or about.get("mtime") or about.get("LastModified") or ""
            yield File(fs.unstrip_protocol(name), int(about.get("size") or 0), str(version))
    except OSError as error:
        raise ReadError(f"`{url}` cannot be listed: {error}", path=url) from error


def _is_wanted(name: str, suffixes: Sequence[str]) -> bool:
    """Leave out hidden files, those that are being written, and what is of another kind."""
    return not name.startswith((".", "_")) and (not suffixes or name.lower().endswith(tuple(suffixes)))


def _file_at(path: str) -> File:
    about = os.stat(path)
    return File(os.path.abspath(path), about.st_size, str(about.st_mtime_ns))


def _nothing_at(path: str, suffixes: Sequence[str]) -> str:
    kind = f" {' or '.join(suffixes)}" if suffixes else ""
    if os.path.isdir(path):
        return f"Directory `{path}` holds no{kind} files."
    folder = os.path.dirname(path) or "."
    names = os.listdir(folder) if not is_url(path) and os.path.isdir(folder) else []
    return f"There is no file `{path}`.{did_you_mean(os.path.basename(path), names)}"


@contextlib.contextmanager
def open_to_read(path: str) -> Iterator[IO[bytes]]:
    """Open a file or URL for reading bytes.

    Raises
    ------
    ReadError
        It is not there any more, or may not be read.
    """
    with contextlib.ExitStack() as stack:
        try:
            opened = stack.enter_context(_open_url(path) if is_url(path) else _open_local(path))
        except OSError as error:
            raise ReadError(f"`{path}` cannot be opened: {error.strerror or error}", path=path) from error
        yield opened


def _open_local(path: str) -> IO[bytes]:
    return open(path, "rb")


def _open_url(url: str) -> IO[bytes]:
    import fsspec

    opened: IO[bytes] = fsspec.open(url, "rb").open()
    return opened


@contextlib.contextmanager
def written_whole(path: str) -> Iterator[IO[bytes]]:
    """Open a file that appears under its name when it is complete, and on disk; until then it has another name.

    Raises
    ------
    WriteError
        It cannot be written: no room, no permission. Nothing of it is left.
    """
    folder, name = os.path.split(path)
    temporary = os.path.join(folder, f".{name}.{secrets.token_hex(4)}.part")
    try:
        if is_url(path):
            with _written_elsewhere(path, temporary) as file:
                yield file
            return
        try:
            with open(temporary, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
    except OSError as error:
        raise WriteError(f"`{path}` cannot be written: {error.strerror or error}.", path=path) from error


@contextlib.contextmanager
def _written_elsewhere(path: str, temporary: str) -> Iterator[IO[bytes]]:
    import fsspec

    fs, _ = fsspec.core.url_to_fs(path)
    try:
        with fs.open(temporary, "wb") as file:
            yield file
        fs.mv(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            fs.rm(temporary)
        raise


def make_folder(path: str, mode: str) -> list[str]:
    """Make a directory for output, and return the files that are in it already.

    Raises
    ------
    WriteError
        It holds files and *mode* is ``"error"``, or it cannot be made.
    """
    try:
        if is_url(path):
            import fsspec

            fs, inner = fsspec.core.url_to_fs(path)
            fs.makedirs(inner, exist_ok=True)
            names: list[Any] = [fs.unstrip_protocol(name) for name in fs.find(inner)]
        else:
            os.makedirs(path, exist_ok=True)
            names = [str(entry) for entry in sorted(Path(path).iterdir()) if entry.is_file()]
    except OSError as error:
        raise WriteError(f"`{path}` cannot be made a directory: {error.strerror or error}.", path=path) from error
    if names and mode == "error":
        raise WriteError(
            f'`{path}` holds {len(names):,} files already. Choose another directory, or `mode="overwrite"`, or '
            '`mode="append"`.',
            path=path,
        )
    return names


def remove(path: str) -> None:
    """Remove a file."""
    if is_url(path):
        import fsspec

        fs, inner = fsspec.core.url_to_fs(path)
        fs.rm(inner)
    else:
        os.unlink(path)


__all__ = ["File", "Paths", "find_files", "make_folder", "open_to_read", "remove", "written_whole"]
