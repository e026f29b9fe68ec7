"""A set is made, and what comes back from it is compared row by row: real PostgreSQL, pgBackRest and restic."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from psycopg import Connection
from roles.backup.files.telegram_backup import legacy, restoring, sets
from roles.backup.files.telegram_backup.pgbackrest import PgBackRest
from roles.backup.files.telegram_backup.recovery import Recovery
from roles.backup.files.telegram_backup.restic import Restic
from roles.backup.files.telegram_backup.tools import AS_POSTGRES, BackupError, Database, Settings, call
from tests.integration import servers
from tests.integration.servers import Postgres

_LACKS = [program for program in ("pgbackrest", "restic") if not shutil.which(program)]
pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="A backup becomes the database's user, which needs root."),
    pytest.mark.skipif(bool(_LACKS), reason=f"Not installed: {', '.join(_LACKS)}."),
    pytest.mark.requirement("DB-06"),
]
FILL = """
SELECT telegram.bulk_upsert_messages(
  array_agg(-1000000000000 - n % 3), array_agg(n), array_agg(now() - n * interval '1 second'), array_agg(n),
  array_agg(now()), array_agg('user_client'::text), array_agg('text'::text), array_agg('compra ' || n)
) FROM generate_series({first}, {last}::bigint) AS n
"""


@dataclass(frozen=True)
class Stack:
    """A database with messages, and the settings of its backup. `early` is a moment between two loads of messages."""

    server: Postgres
    settings: Settings
    folder: Path
    early: str

    def fresh(self, name: str) -> Path:
        """An empty folder for data, of the database's user."""
        data = self.folder / name
        data.mkdir(mode=0o700)
        shutil.chown(data, "postgres", "postgres")
        return data

    @property
    def database(self) -> Database:
        assert self.settings.database
        return self.settings.database


def fill(connection: Connection[Any], first: int, last: int) -> None:
    connection.execute(FILL.format(first=first, last=last).encode())


def messages(connection: Connection[Any]) -> set[tuple[int, int]]:
    return set(connection.execute("SELECT channel_id, message_id FROM telegram.messages").fetchall())


def expected(last: int) -> set[tuple[int, int]]:
    return {(-1000000000000 - number % 3, number) for number in range(1, last + 1)}


@contextlib.contextmanager
def writing(server: Postgres) -> Iterator[None]:
    """Somebody who writes all the time."""
    done = threading.Event()

    def write() -> None:
        with server.connect("telegram_owner") as connection:
            while not done.wait(0.005):
                connection.execute("UPDATE telegram.channels SET last_pts = coalesce(last_pts, 0) + 1")

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    with tempfile.TemporaryDirectory(prefix="telegram-stack-") as name:
        folder = Path(name)
        folder.chmod(0o711)
        config = folder / "pgbackrest.conf"
        with servers.postgres(folder, archive_mode="on") as server:
            yield _backed_up(server, folder, config)


def _backed_up(server: Postgres, folder: Path, config: Path) -> Stack:
    """A set of 3,000 messages made while somebody writes, then 500 more in the log, and 500 more after `early`."""
    data = Path(server.control[-1])
    (data / "pg_ident.conf").write_text("own root postgres\nown postgres postgres\n")
    (data / "pg_hba.conf").write_text("local all postgres peer map=own\nhost all all 127.0.0.1/32 scram-sha-256\n")
    repository = folder / "repository"
    repository.mkdir()
    shutil.chown(repository, "postgres", "postgres")
    passphrase = folder / "passphrase"
    passphrase.write_text(secrets.token_hex(16))
    config.write_text(
        f"[global]\nrepo1-path={repository}\nrepo1-cipher-type=aes-256-cbc\nrepo1-cipher-pass={passphrase.read_text()}\n"
        "repo1-retention-full=9999999\nrepo1-retention-archive=7\nrepo1-retention-archive-type=diff\nexpire-auto=n\n"
        "start-fast=y\nlog-level-console=off\nlog-level-file=off\nlog-level-stderr=warn\n"
        f"lock-path={repository}/lock\n[telegram]\npg1-path={data}\npg1-socket-path={data.parent}\npg1-port={server.port}\n"
    )
    shutil.chown(config, "postgres")
    programs = servers.postgres_programs()
    database = Database(str(config), str(programs), str(data.parent), server.port, servers.DATABASE)
    kept = folder / "kept"
    kept.mkdir()
    (kept / "session").write_bytes(secrets.token_bytes(300))
    state = folder / "state"
    state.mkdir(mode=0o711)
    keep = {"daily": 7, "weekly": 4, "monthly": 12}
    settings = Settings(
        "one", str(folder / "files"), str(passphrase), state, keep, paths=[str(kept)], database=database
    )
    with server.connect() as connection:
        connection.execute("SELECT pg_reload_conf()")
        connection.execute("INSERT INTO telegram.channels (channel_id) VALUES (-1000000000001)")
        fill(connection, 1, 3000)
        call([*AS_POSTGRES, "pgbackrest", f"--config={config}", "--stanza=telegram", "stanza-create"], what="stanza")
        # Not before: a server whose archiving failed waits a minute before it tries again.
        archive = f"pgbackrest --config={config} --stanza=telegram archive-push %p"
        connection.execute(f"ALTER SYSTEM SET archive_command = '{archive}'".encode())
        connection.execute("SELECT pg_reload_conf()")
        Restic(settings).create()
        with writing(server):
            sets.make(settings)
        fill(connection, 3001, 3500)
        row = connection.execute("SELECT clock_timestamp()::text").fetchone()
        assert row
        fill(connection, 3501, 4000)
    PgBackRest(database).check()
    return Stack(server, settings, folder, row[0])


@pytest.fixture
def restored(stack: Stack, request: pytest.FixtureRequest) -> Iterator[set[tuple[int, int]]]:
    """The messages of a database that was restored up to the moment that the test asks for."""
    data = stack.fresh(f"data-{secrets.token_hex(4)}")
    said = restoring.database(stack.settings, "latest", stack.early if request.param else "", data)
    assert said["rows"] > 3000
    server = replace(stack.server, port=servers.free_port(), control=(*stack.server.control[:-1], str(data)))
    (data / "pg_hba.conf").write_text("host all all 127.0.0.1/32 scram-sha-256\n")
    options = (
        f"--port={server.port} --listen_addresses=127.0.0.1 --unix_socket_directories={stack.folder / 'state/recovery'}"
    )
    subprocess.run([*server.control, "-w", "-s", "-l", str(data / "log"), "-o", options, "start"], check=True, cwd="/")
    try:
        with server.connect() as connection:
            assert connection.execute("SELECT pg_is_in_recovery()").fetchone() == (False,)
            yield messages(connection)
    finally:
        server.stop()


@pytest.mark.parametrize("restored", [False], indirect=True)
def test_all_that_was_archived_comes_back(restored: set[tuple[int, int]]) -> None:
    assert restored == expected(4000)


@pytest.mark.parametrize("restored", [True], indirect=True)
def test_a_moment_comes_back_and_nothing_after_it(restored: set[tuple[int, int]]) -> None:
    assert restored == expected(3500)


def test_the_restore_test_leaves_nothing_behind(stack: Stack) -> None:
    assert "tables equal in count and checksum" in restoring.test(stack.settings)
    assert list(stack.settings.scratch.iterdir()) == []


def test_a_table_that_comes_back_otherwise_is_told(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    real = sets.catalogue

    def forged(*given: Any) -> dict[str, Any]:
        found = real(*given)
        found["database"]["tables"]["messages"]["rows"] += 1
        return found

    monkeypatch.setattr(sets, "catalogue", forged)
    with pytest.raises(BackupError, match=r"messages: 3001 rows .* in the catalogue, 3000 rows"):
        restoring.test(stack.settings)


def test_a_wrong_passphrase_stops_before_anything(stack: Stack) -> None:
    wrong = stack.folder / "wrong"
    wrong.write_text("not the passphrase")
    with pytest.raises(BackupError, match=r"the passphrase does not open the backup repository .* Nothing was changed"):
        restoring.check(replace(stack.settings, passphrase_file=str(wrong)), "latest", "", stack.folder / "data")


def test_a_disk_that_is_too_small_stops_before_anything(stack: Stack) -> None:
    small = stack.folder / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=20m", "tmpfs", str(small)], check=True)
    try:
        with pytest.raises(BackupError, match=r"needs \d+ MB below .* Nothing was changed"):
            restoring.check(stack.settings, "latest", "", small / "data")
        assert list(small.iterdir()) == []
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_a_set_that_is_not_there_names_those_that_are(stack: Stack) -> None:
    (made,) = sets.listed(Restic(stack.settings))
    with pytest.raises(BackupError, match=f"no backup set named nobody; the sets of this host are: {made['set']}"):
        restoring.check(stack.settings, "nobody", "", None)
    with pytest.raises(BackupError, match="no backup set before 2020-01-01T00:00"):
        restoring.check(stack.settings, "latest", "2020-01-01T00:00", None)
    another = replace(stack.settings, host="another")
    with pytest.raises(BackupError, match=f"this host are: none. There are sets of {stack.settings.host}: name it in"):
        restoring.check(another, "latest", "", None)


def test_a_legacy_system_is_archived_and_read_back(stack: Stack) -> None:
    source = {"host": "127.0.0.1", "port": stack.server.port, "user": "postgres", "db": servers.DATABASE}
    source["password"] = stack.server.password
    session = stack.folder / "kept" / "session"
    made = legacy.make(stack.settings, "phase1", [str(session)], source, ["telegram.messages", "telegram.channels"])
    assert made["tables"]["telegram.messages"]["rows"] == 4000
    assert list(made["files"]) == [str(session)]
    out = stack.folder / "out"
    legacy.restore(stack.settings, "phase1", out, [str(session)])
    assert (out / session.relative_to("/")).read_bytes() == session.read_bytes()
    with pytest.raises(BackupError, match=r"reading database .* as postgres failed: .*does not exist"):
        legacy.make(stack.settings, "phase1", [], source, ["telegram.nothing"])


def test_a_file_that_grows_while_it_is_archived_is_whole_up_to_where_it_was(stack: Stack) -> None:
    queue = stack.folder / "failure-queue.jsonl"
    stop = threading.Event()

    def grow() -> None:
        with queue.open("a") as file:
            while not stop.is_set():
                file.write("{}\n")
                file.flush()

    queue.write_text("{}\n" * 1000)
    growing = threading.Thread(target=grow)
    growing.start()
    try:
        assert list(legacy.make(stack.settings, "queue", [str(queue)], {}, [])["files"]) == [str(queue)]
    finally:
        stop.set()
        growing.join()


def test_a_server_that_cannot_recover_says_why(stack: Stack) -> None:
    data = stack.fresh("unreachable")
    PgBackRest(stack.database).restore(data, PgBackRest(stack.database).backups()[-1]["label"], "no-such-point")
    recovery = Recovery(stack.database, data, stack.settings.state_dir / "recovery")
    with pytest.raises(BackupError, match=r"did not reach its restore point: .*before configured recovery target"):
        recovery.start("pg_stat_statements", "/bin/false")
