"""A real PgBouncer with the files that the role `pgbouncer` renders, in front of a real PostgreSQL."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2
import psycopg
import yaml
from tests.integration.servers import DATABASE, ROOT, Postgres, free_port, wait_until

ROLE = ROOT / "roles" / "pgbouncer"


@dataclass
class Pooler:
    """A running PgBouncer."""

    port: int
    folder: Path
    password: str
    """Of database roles, as at the server, and of the console's users."""
    process: subprocess.Popen[bytes] = field(repr=False)

    def connect(self, role: str = "telegram_api", database: str = DATABASE) -> psycopg.Connection[Any]:
        """A client of the pool that commits each statement."""
        return psycopg.connect(
            host="127.0.0.1",
            port=self.port,
            dbname=database,
            user=role,
            password=self.password,
            autocommit=True,
            prepare_threshold=None,
            cursor_factory=psycopg.ClientCursor,
        )

    def console(self, command: str) -> list[dict[str, Any]]:
        """What the console answers to an administrator."""
        with self.connect("test_admin", "pgbouncer") as console:
            found = console.execute(command.encode())
            names = [column.name for column in found.description or []]
            return [dict(zip(names, row, strict=True)) for row in found] if names else []

    @property
    def login(self) -> dict[str, Any]:
        """Options that let a module log in as the administrator."""
        return {
            "login_host": "127.0.0.1",
            "login_port": self.port,
            "login_user": "test_admin",
            "login_password": self.password,
        }

    @property
    def stats_login(self) -> dict[str, Any]:
        """Options that let a module log in as the statistics user of the role."""
        return {**self.login, "login_user": "pgbouncer_stats"}


def _version() -> str:
    shown = subprocess.run(["pgbouncer", "--version"], check=True, capture_output=True, text=True).stdout
    return shown.split()[1]


def _at_least(version: str, other: str, operator: str) -> bool:
    """Ansible's test `version`, as far as the template needs it."""
    assert operator == ">="
    return [int(part) for part in version.split(".")] >= [int(part) for part in other.split(".")]


def _render(folder: Path, server: Postgres, port: int, settings: dict[str, Any]) -> None:
    """The role's files, with its defaults, and an administrator of the console who needs no socket."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(ROLE / "templates"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701 - no HTML
    )
    environment.tests["version"] = _at_least
    values = {
        "ansible_managed": "test",
        "telegram_database_name": DATABASE,
        "telegram_database_host": "127.0.0.1",
        "telegram_database_port": server.port,
        "telegram_bind_address": "127.0.0.1",
        "telegram_pgbouncer_port": port,
        "telegram_secrets": {"pgbouncer_lookup": server.password, "pgbouncer_stats": server.password},
        **yaml.safe_load((ROLE / "defaults" / "main.yml").read_text()),
        **settings,
        "_pgbouncer_conf_dir": str(folder),
        "_pgbouncer_socket_dir": str(folder),
        "_pgbouncer_version": _version(),
    }
    for name in ("pgbouncer.ini", "telegram.ini", "userlist.txt"):
        (folder / name).write_text(environment.get_template(f"{name}.j2").render(values))
    with (folder / "telegram.ini").open("a") as more:
        more.write("admin_users = test_admin\n")
    with (folder / "userlist.txt").open("a") as more:
        more.write(f'"test_admin" "{server.password}"\n')


@contextlib.contextmanager
def pgbouncer(server: Postgres, **settings: Any) -> Iterator[Pooler]:
    """A pooler of its own in front of `server`; `settings` are variables of the role."""
    user = "postgres" if os.geteuid() == 0 else None  # PgBouncer refuses root
    with tempfile.TemporaryDirectory(prefix="telegram-stack-") as name:
        folder, port = Path(name), free_port()
        _render(folder, server, port, settings)
        if user:
            shutil.chown(folder, user)
            for path in folder.iterdir():
                shutil.chown(path, user)
        command = ["runuser", "-u", user, "--"] if user else []
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [*command, "/usr/sbin/pgbouncer", folder / "pgbouncer.ini"], stdout=log, stderr=log, cwd="/"
            )
        pooler = Pooler(port, folder, server.password, process)
        try:
            wait_until(lambda: _serves(pooler))
            yield pooler
        finally:
            process.terminate()
            process.wait(timeout=30)


def _serves(pooler: Pooler) -> bool:
    assert pooler.process.poll() is None, (pooler.folder / "log").read_text()
    with contextlib.suppress(psycopg.OperationalError):
        return bool(pooler.console("SHOW VERSION"))
    return False


def made_up_password() -> str:
    """A password nobody has."""
    return secrets.token_hex(8)
