"""The engines for the tests of ``sql/``: PostgreSQL here, TimescaleDB Apache on a target host, community as WASM."""

from __future__ import annotations

import contextlib
import json
import secrets
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest
from plugins.module_utils.postgresql_migrations import split
from tests.integration import community, servers
from tests.integration.servers import ROOT, Postgres
from tools.targets import host
from tools.targets.lab import locked

HOST, SNAPSHOT = "sqltest", "sqltest-apache"
LAB_LOCK = ROOT / ".cache" / "lab.lock"
"""Held while hosts of the clone's lab are in use: one that boots is named in /etc/hosts of the others."""
_INSTALL = """set -e
apt-get update -qq
mkdir -p /etc/postgresql-common
export DEBIAN_FRONTEND=noninteractive
apt-get install -yqq --no-install-recommends postgresql-17 postgresql-17-timescaledb >/dev/null
conf=/etc/postgresql/17/main
printf "%s\\n" "listen_addresses='*'" "shared_preload_libraries='timescaledb,pg_stat_statements'" \
  "timescaledb.telemetry_level=off" "timezone='UTC'" >$conf/conf.d/test.conf
echo "host all all samenet scram-sha-256" >>$conf/pg_hba.conf
systemctl restart postgresql@17-main
"""


@dataclass(frozen=True)
class Wasm(Postgres):
    """The community edition: one session, so connections come one after the other and become their role."""

    def connect(self, role: str = "postgres", database: str = "template1") -> psycopg.Connection[Any]:
        """A connection that commits each statement."""
        connection = super().connect("postgres", "template1")
        connection.prepare_threshold = None
        if role != "postgres":
            connection.execute(f"SET ROLE {role}".encode())
        return connection


@pytest.fixture(scope="module", params=["native", "timescale", "timescale_apache"])
def engine_server(request: pytest.FixtureRequest) -> Iterator[Postgres]:
    """A server of each engine in turn; one that cannot be had here is skipped with the reason."""
    missing = lacks(request.param)
    if missing:
        pytest.skip(missing)
    with engine(request.param) as running:
        yield running


@contextlib.contextmanager
def engine(name: str) -> Iterator[Postgres]:
    """A server of that engine with the schema."""
    with {"native": servers.postgres, "timescale_apache": _apache, "timescale": _wasm}[name]() as server:
        yield server


def lacks(name: str) -> str:
    """Why an engine cannot be had here, in a sentence; empty when it can."""
    if name == "timescale":
        return community.missing() or ""
    if name == "timescale_apache":
        return " ".join(host.lacks())
    return "" if name != "native" or servers.postgres_programs() else "PostgreSQL is not installed."


def _targets(*words: str) -> str:
    command = [sys.executable, "-m", "tools.targets", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr
    return done.stdout


@contextlib.contextmanager
def _apache() -> Iterator[Postgres]:
    """Debian 13's own packages on a target host; installed once, then booted from a saved disk. One test at a time."""
    with locked(LAB_LOCK):
        yield from _apache_alone()


def _apache_alone() -> Iterator[Postgres]:
    listed = json.loads(_targets("list", "--json"))
    if any(target["name"] == HOST for target in listed["targets"]):
        _targets("down", HOST)
    try:
        if any(saved["name"] == SNAPSHOT for saved in listed["snapshots"]):
            _targets("up", HOST, "--from", SNAPSHOT)
        else:
            _targets("up", HOST)
            _targets("exec", HOST, "sh", "-c", _INSTALL)
            _targets("save", HOST, SNAPSHOT)
        address = json.loads(_targets("inventory", HOST))[HOST]["ansible_host"]
        server = Postgres(5432, secrets.token_hex(8), str(address))
        password = f"ALTER ROLE postgres PASSWORD '{server.password}'"
        ready = "until pg_isready -q; do sleep 0.1; done; cd /; "
        _targets("exec", HOST, "sh", "-c", f'{ready} runuser -u postgres -- psql -qc "{password}"')
        servers.create_schema(server, "timescale_apache")
        yield server
    finally:
        _targets("down", HOST)


@contextlib.contextmanager
def _wasm() -> Iterator[Postgres]:
    with community.timescale() as empty:
        server = Wasm(empty.port, empty.password)
        _create_schema_in_one_session(server)
        yield server


@contextlib.contextmanager
def apache_on_community() -> Iterator[Postgres]:
    """The community edition with a database as the Apache edition has left it: nothing was adopted yet.

    The edition's licence cannot be changed in the WASM build, so the Apache server itself is not there.
    """
    with community.timescale() as empty:
        server = Wasm(empty.port, empty.password)
        _create_schema_in_one_session(server, without="CALL telegram.adopt_engine")
        with server.connect("telegram_owner") as connection:
            connection.execute("UPDATE telegram.settings SET value = 'timescale_apache' WHERE name = 'engine'")
        yield server


def _create_schema_in_one_session(server: Postgres, without: str = "pg_stat_statements") -> None:
    with server.connect() as connection:
        for role in servers.ROLES:
            connection.execute(f"CREATE ROLE {role} LOGIN".encode())
        connection.execute("ALTER DATABASE template1 OWNER TO telegram_owner")
        connection.execute("CREATE SCHEMA telegram AUTHORIZATION telegram_owner")
        connection.execute("CREATE TABLE telegram.schema_migrations (name text PRIMARY KEY)")
        connection.execute("ALTER TABLE telegram.schema_migrations OWNER TO telegram_owner")
        for path in servers.schema_files("timescale"):
            connection.execute("RESET ROLE" if path.name.startswith("0001") else "SET ROLE telegram_owner")
            for statement in split(path.read_text()):
                # Not there in this build: the extension; two changes of the database's rights by one command.
                if not any(
                    part in statement.text for part in ("pg_stat_statements", "REVOKE ALL ON DATABASE", without)
                ):
                    connection.execute(statement.text.encode())
