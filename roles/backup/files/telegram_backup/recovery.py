"""A server of its own that recovers a restored database: held at the restore point, compared, and led on from there."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psycopg

from . import tables
from .tools import AS_POSTGRES, BackupError, Database, call, empty

PORT = 5432
"""Only the name of its socket, which stands in a folder of its own; it listens nowhere else."""
SECONDS = 3600.0
# A standby refuses to read with less than its primary had.
_LIMITS = {
    "max_connections": "max_connections setting",
    "max_worker_processes": "max_worker_processes setting",
    "max_wal_senders": "max_wal_senders setting",
    "max_prepared_transactions": "max_prepared_xacts setting",
    "max_locks_per_transaction": "max_locks_per_xact setting",
}
_TARGETS = ("recovery_target_name", "recovery_target_time", "recovery_target_action", "restore_command")


class Recovery:
    """The server for the data in `data`; `home` is a folder for its socket, settings and log."""

    def __init__(self, database: Database, data: Path, home: Path) -> None:
        self._database = database
        self._data = data
        self._home = empty(home, "postgres")
        self._control = [*AS_POSTGRES, f"{database.bin_dir}/pg_ctl", "--silent", f"--pgdata={data}"]

    def start(self, preload: str, archive_command: str) -> None:
        """Recover up to the restore point and wait there, open for reading. Raises BackupError."""
        said = call([f"{self._database.bin_dir}/pg_controldata", str(self._data)], what="reading the restored cluster")
        settings = limits(said.decode()) | {
            "listen_addresses": "",
            "port": str(PORT),
            "unix_socket_directories": str(self._home),
            "hba_file": str(self._home / "pg_hba.conf"),
            "ident_file": str(self._home / "pg_ident.conf"),
            "shared_preload_libraries": preload,
            "shared_buffers": "128MB",
            "timescaledb.telemetry_level": "off",
            "archive_command": archive_command,
            "hot_standby": "on",
        }
        self._write("postgresql.conf", "".join(f"{name} = '{value}'\n" for name, value in settings.items()))
        self._write("pg_hba.conf", "local all postgres peer map=own\n")
        self._write("pg_ident.conf", "own root postgres\nown postgres postgres\n")
        self._run()
        self._wait("SELECT pg_is_in_recovery() AND pg_get_wal_replay_pause_state() = 'paused'", "its restore point")

    def differences(self, wanted: Mapping[str, Any]) -> list[str]:
        """What the tables hold otherwise than the catalogue says."""
        with tables.connect(str(self._home), PORT, self._database.name) as connection:
            return tables.differences(dict(wanted), tables.contents(connection))

    def go_on(self, until: str) -> str:
        """Recover what was archived after the restore point, up to time `until` where it is given, and take writes.

        The time of the last transaction that was recovered.
        """
        self.stop()
        self._run(
            "archive_mode=on",
            "recovery_target_name=",
            f"recovery_target_time={until}",
            "recovery_target_action=promote",
        )
        self._wait("SELECT NOT pg_is_in_recovery()", "the end of its log")
        with self._connect() as connection:
            row = connection.execute("SELECT pg_last_xact_replay_timestamp()::text").fetchone()
            for name in _TARGETS:
                connection.execute(f"ALTER SYSTEM RESET {name}".encode())
        self.stop()
        return str(row[0] if row else "")

    def stop(self) -> None:
        """End the server, if it runs."""
        if (self._data / "postmaster.pid").exists():
            call([*self._control, "--mode=fast", "--wait", "stop"], what="stopping the recovering server")

    def _run(self, *settings: str) -> None:
        options = " ".join([f"--config-file={self._home}/postgresql.conf", *(f"-c '{each}'" for each in settings)])
        start = [*self._control, f"--log={self._home}/log", f"--options={options}", "--no-wait", "start"]
        call(start, what="starting the recovering server")

    def _connect(self) -> psycopg.Connection[Any]:
        return psycopg.connect(host=str(self._home), port=PORT, user="postgres", dbname="postgres", autocommit=True)

    def _wait(self, question: str, what: str) -> None:
        """Until the server says yes. Raises BackupError with its own words where it ends before."""
        begun = time.monotonic()
        while time.monotonic() < begun + SECONDS:
            time.sleep(0.2)
            try:
                with self._connect() as connection:
                    row = connection.execute(question.encode()).fetchone()
                if row and row[0]:
                    return
            except psycopg.OperationalError as error:
                if not (self._data / "postmaster.pid").exists() and time.monotonic() > begun + 2:
                    raise BackupError(f"the restored database did not reach {what}: {self._last_words()}") from error
        raise BackupError(
            f"the restored database did not reach {what} within {SECONDS / 60:.0f} min: {self._last_words()}"
        )

    def _last_words(self) -> str:
        lines = (self._home / "log").read_text(errors="replace").splitlines()
        telling = [line for line in lines if re.search(r"FATAL|PANIC|ERROR|HINT", line)]
        return " ".join((telling or lines)[-3:])

    def _write(self, name: str, text: str) -> None:
        path = self._home / name
        path.write_text(text, encoding="utf-8")
        shutil.chown(path, "postgres", "postgres")


def limits(controldata: str) -> dict[str, str]:
    """Settings that a standby needs, from what pg_controldata prints. Raises BackupError."""
    printed = {
        name.strip(): value.strip()
        for name, _colon, value in (line.partition(":") for line in controldata.splitlines())
    }
    try:
        return {setting: printed[name] for setting, name in _LIMITS.items()}
    except KeyError as error:
        raise BackupError(f"pg_controldata does not name {error}") from error
