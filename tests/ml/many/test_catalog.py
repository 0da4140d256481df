"""The catalog on disk: whole whatever ends its writer, quick with a hundred thousand fits."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from shoal_ml.train.many.catalog import DONE, FAILED, FILE, MAX_BLOB, MODELS, Catalog, FitRow
from shoal_ml.train.many.errors import CatalogError


def row(number: int, **fields):
    key = f'"{number}"'
    made = FitRow(f"id-{number}", key, "ridge", {"alpha": 1}, DONE, {"rmse": 1.0}, 0.5, 3, "code", "data", 1)
    return made._replace(**fields)


@pytest.fixture
def catalog(tmp_path: Path):
    made = Catalog(tmp_path / "store", create=True)
    yield made
    made.close()


def test_what_was_written_is_read(catalog: Catalog):
    fits = [(row(1), b"one"), (row(2, state=FAILED, error="ValueError: no"), None)]
    catalog.add(fits)
    assert catalog.rows() == [fit for fit, _ in fits] and catalog.pickled("id-1") == b"one"
    assert catalog.rows(FAILED) == [fits[1][0]] and catalog.rows_of('"2"') == [fits[1][0]]
    assert catalog.hashes() == {"id-1": ("code", "data")} and catalog.count() == 2 and catalog.count(DONE) == 1


def test_a_fit_that_is_made_again_takes_the_place_of_the_old(catalog: Catalog):
    catalog.add([(row(1), b"old")])
    catalog.add([(row(1, seconds=2.0), b"new")])
    assert catalog.pickled("id-1") == b"new" and [one.seconds for one in catalog.rows()] == [2.0]


def test_large_models_are_files(catalog: Catalog):
    large = os.urandom(MAX_BLOB + 1)
    catalog.add([(row(1), large)])
    assert catalog.pickled("id-1") == large
    assert [path.name for path in (catalog.directory / MODELS).iterdir()] == ["id-1.pkl"]
    (catalog.directory / MODELS / "id-1.pkl").unlink()
    with pytest.raises(CatalogError, match="not in"):
        catalog.pickled("id-1")


def test_one_writes_at_a_time(catalog: Catalog):
    other = Catalog(catalog.directory)
    with catalog.writing(), pytest.raises(CatalogError, match="Another run"), other.writing():
        pass
    with other.writing():
        pass
    other.close()


def test_nobody_else_may_read_it(catalog: Catalog):
    assert catalog.directory.stat().st_mode & 0o777 == 0o700
    assert (catalog.directory / FILE).stat().st_mode & 0o777 == 0o600


def test_other_things_are_refused(tmp_path: Path):
    with pytest.raises(CatalogError, match="no catalog"):
        Catalog(tmp_path)
    (tmp_path / FILE).write_bytes(b"not a database, but as long as a header of one would be " * 20)
    with pytest.raises(CatalogError, match="cannot be read"):
        Catalog(tmp_path)
    (tmp_path / FILE).unlink()
    with sqlite3.connect(tmp_path / FILE) as connection:
        connection.execute("CREATE TABLE something (x)")
    connection.close()
    with pytest.raises(CatalogError, match="no tables of ours"):
        Catalog(tmp_path)


def test_another_layout_is_refused(catalog: Catalog):
    catalog.set_about({"version": 99})
    with pytest.raises(CatalogError, match="version 99"):
        Catalog(catalog.directory)


def test_a_writer_that_is_killed_leaves_whole_transactions(tmp_path: Path):
    program = textwrap.dedent(
        """
        import itertools, sys
        from shoal_ml.train.many.catalog import Catalog, FitRow
        catalog = Catalog(sys.argv[1], create=True)
        for n in itertools.count():
            row = lambda k: FitRow(f"{n}-{k}", f'"{n}"', "t", {}, "done", {}, 0.0, 1, "c", "d", 1)
            catalog.add([(row(k), b"model" * 100) for k in range(7)])
            if n == 20:
                print("go", flush=True)
        """
    )
    with subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None and writer.stdout.readline() == b"go\n"
        writer.send_signal(signal.SIGKILL)
    catalog = Catalog(tmp_path)
    count = catalog.count()
    assert count >= 21 * 7 and count % 7 == 0
    assert all(catalog.pickled(one.fit_id) == b"model" * 100 for one in catalog.rows())
    catalog.close()


def test_a_hundred_thousand_fits_stay_usable(catalog: Catalog):
    catalog.add((row(number), b"x" * 200) for number in range(100_000))
    assert catalog.count() == 100_000 and len(catalog.rows_of('"77777"')) == 1
    assert len(list(catalog.directory.iterdir())) <= 5
