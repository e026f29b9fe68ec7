"""Archives of a legacy system: its files and an engine-neutral copy of its tables, read back before they count."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from .restic import Restic, Snapshot
from .tools import BackupError, Settings, empty, need_space

_COLUMNS = """
SELECT a.attname, format_type(a.atttypid, a.atttypmod)
FROM pg_attribute AS a
WHERE a.attrelid = %s::regclass AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY a.attnum
"""
_BLOCK = 1 << 20


def make(settings: Settings, name: str, paths: list[str], source: dict[str, Any], tables: list[str]) -> dict[str, Any]:
    """Store `paths` and `tables` of the database `source` as archive `name`, restore it to scratch and compare.

    What is in it: `snapshot`, `files`, `tables` with rows and checksum. Raises BackupError.
    """
    restic = Restic(settings)
    if not restic.exists():
        restic.create()
    missing = [path for path in paths if not Path(path).exists()]
    if missing:
        raise BackupError(f"to be archived, but not there: {', '.join(missing)}; correct the paths, then run it again")
    staging = empty(settings.state_dir / "archive")
    try:
        exported = _export(source, tables, staging) if tables else {}
        lengths = {str(file): file.stat().st_size for file in _files(map(Path, paths))}
        files = {path: _checksum(Path(path), length) for path, length in lengths.items()}
        content = {"archive": name, "files": files, "tables": exported}
        (staging / "catalogue.json").write_text(json.dumps(content, indent=2), encoding="utf-8")
        restic.backup([staging, *map(Path, paths)], ["archive", f"archive={name}"])
        snapshot = find(restic, name)
        _verify(settings, restic, snapshot, content, lengths)
    finally:
        empty(settings.state_dir / "archive")
    return {"snapshot": snapshot.id, "files": files, "tables": exported}


def find(restic: Restic, name: str) -> Snapshot:
    """The newest archive `name`. Raises BackupError."""
    fitting = [entry for entry in restic.snapshots("archive") if entry.tag("archive") == name]
    if not fitting:
        raise BackupError(f"the repository has no archive named {name} of this host")
    return fitting[-1]


def restore(settings: Settings, name: str, folder: Path, only: list[str]) -> None:
    """Write an archive's files below `folder`, each at its own path; those of `only`, or all. Raises BackupError."""
    restic = Restic(settings)
    restic.open()
    snapshot = find(restic, name)
    need_space(folder, restic.size(snapshot), what=f"restoring archive {name}")
    chosen = [f"--include={path}" for path in only] or [f"--exclude={settings.state_dir / 'archive'}"]
    restic.restore(snapshot, folder, *chosen)
    lacking = [path for path in only if not (folder / Path(path).relative_to("/")).exists()]
    if lacking:
        raise BackupError(f"archive {name} does not have {', '.join(lacking)}")


def _files(paths: Iterable[Path]) -> Iterator[Path]:
    """Each file, and each file below each folder."""
    for path in paths:
        yield from (file for file in (sorted(path.rglob("*")) if path.is_dir() else [path]) if file.is_file())


def _checksum(file: Path, length: int) -> str:
    """SHA-256 of the first `length` bytes."""
    digest = hashlib.sha256()
    with file.open("rb") as content:
        while length and (block := content.read(min(length, _BLOCK))):
            digest.update(block)
            length -= len(block)
    return digest.hexdigest()


def _verify(
    settings: Settings, restic: Restic, snapshot: Snapshot, content: dict[str, Any], lengths: dict[str, int]
) -> None:
    """Restore to scratch and compare every file and every table with what was read at the source.

    A legacy system that runs appends to its files: of each as much counts as it had when it was read.
    """
    scratch = empty(settings.state_dir / "archive-scratch")
    try:
        need_space(scratch, restic.size(snapshot), what="reading the archive back")
        restic.restore(snapshot, scratch)
        for path, checksum in content["files"].items():
            copy = scratch / Path(path).relative_to("/")
            if not copy.is_file() or _checksum(copy, lengths[path]) != checksum:
                raise BackupError(f"{path} came back otherwise than it was read: it changes, or the disk is bad")
        for table, wanted in content["tables"].items():
            copy = scratch / (settings.state_dir / "archive").relative_to("/") / wanted["file"]
            if (found := _counted(copy)) != (wanted["rows"], wanted["checksum"]):
                raise BackupError(f"table {table} came back with {found[0]} rows instead of {wanted['rows']}")
    finally:
        empty(scratch)


def _export(source: dict[str, Any], tables: list[str], folder: Path) -> dict[str, dict[str, Any]]:
    """Copy the tables as they are in one moment, without changing or locking anything in the source."""
    where = f"database {source['db']} at {source['host']}:{source['port']}"
    try:
        with psycopg.connect(
            host=source["host"],
            port=source["port"],
            user=source["user"],
            password=source.get("password") or None,
            dbname=source["db"],
            connect_timeout=10,
            application_name="telegram-backup",
            options="-c TimeZone=UTC -c DateStyle=ISO -c extra_float_digits=1 -c bytea_output=hex",
        ) as connection:
            connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            connection.read_only = True
            return {table: _export_table(connection, table, folder) for table in tables}
    except psycopg.Error as error:
        raise BackupError(f"reading {where} as {source['user']} failed: {' '.join(str(error).split())}") from error


def _export_table(connection: psycopg.Connection[Any], table: str, folder: Path) -> dict[str, Any]:
    """One table in PostgreSQL's text format, with what is needed to make it anew beside it."""
    name = sql.Identifier(*table.split("."))
    columns = connection.execute(_COLUMNS, [name.as_string(connection)]).fetchall()
    if not columns:
        raise BackupError(f"table {table} has no columns to read")
    listed = sql.SQL(", ").join(sql.Identifier(column) for column, _kind in columns)
    row = connection.execute(sql.SQL("SELECT count(*) FROM {}").format(name)).fetchone()
    file = folder / f"{re.sub('[^A-Za-z0-9_.-]', '_', table)}.copy"
    digest = hashlib.sha256()
    # The parent of a hypertable or of partitions is read by a query only.
    statement = sql.SQL("COPY (SELECT {} FROM {}) TO STDOUT").format(listed, name)
    with file.open("wb") as out, connection.cursor().copy(statement) as copy:
        for block in copy:
            digest.update(block)
            out.write(block)
    rows, checksum = _counted(file)
    if row is None or rows != row[0] or checksum != digest.hexdigest():
        raise BackupError(f"table {table} has {row[0] if row else 'no'} rows, but {rows} were written to {file}")
    file.with_suffix(".sql").write_text(recreation(table, columns, file.name), encoding="utf-8")
    return {"rows": rows, "checksum": checksum, "file": file.name, "columns": dict(columns)}


def recreation(table: str, columns: Iterable[tuple[str, str]], file: str) -> str:
    """Statements for psql that make the table and load it, on any engine."""
    schema = table.rpartition(".")[0]
    name = ".".join(map(_quoted, table.split(".")))
    lines = [f"CREATE SCHEMA IF NOT EXISTS {_quoted(schema)};"] if schema else []
    typed = ",\n".join(f"  {_quoted(column)} {kind}" for column, kind in columns)
    names = ", ".join(_quoted(column) for column, _kind in columns)
    lines += [f"CREATE TABLE {name} (\n{typed}\n);", f"\\copy {name} ({names}) FROM '{file}'"]
    return "\n".join(lines) + "\n"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _counted(file: Path) -> tuple[int, str]:
    """Rows and SHA-256 of a file in text format: a row is a line, since line ends within values are escaped."""
    rows, digest = 0, hashlib.sha256()
    with file.open("rb") as content:
        while block := content.read(_BLOCK):
            rows += block.count(b"\n")
            digest.update(block)
    return rows, digest.hexdigest()
