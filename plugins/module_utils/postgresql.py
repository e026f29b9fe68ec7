# Copyright: the tradingsystem.telegram_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The one way in which modules of this collection connect to PostgreSQL."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

try:
    import psycopg
except ImportError:
    HAS_PSYCOPG = False
else:
    HAS_PSYCOPG = True

if TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule


class Unreachable(Exception):
    """Nothing answers yet: no driver, no server, or no database of that name. Check mode may go on without."""


def connection_argument_spec() -> dict[str, dict[str, Any]]:
    """Options of the documentation fragment `tradingsystem.telegram_stack.postgresql`."""
    return {
        "login_host": {"type": "str", "default": "/run/postgresql"},
        "login_port": {"type": "int", "default": 5434},
        "login_user": {"type": "str", "default": "postgres"},
        "login_password": {"type": "str", "no_log": True},
        "login_db": {"type": "str", "default": "telegram_gateway"},
        "connect_timeout": {"type": "int", "default": 10},
    }


def connect(
    module: AnsibleModule, database: str | None = None, *, prefix: str = "login", **further: Any
) -> psycopg.Connection[Any]:
    """Open an autocommit connection from the module's options, to its `_db` unless `database` is given.

    The options' names begin with `prefix`. `further` goes to psycopg. Raises Unreachable where a host that is not set
    up yet explains it; any other refusal (a wrong password, a role that does not exist) ends the module.
    """
    if not HAS_PSYCOPG:
        raise Unreachable(f"{sys.executable} lacks psycopg 3 (install it with: apt-get install python3-psycopg)")
    options = {name: module.params[f"{prefix}_{name}"] for name in ("host", "port", "user", "password")}
    name = database or module.params[f"{prefix}_db"]
    where = f"database {name} at {options['host']}:{options['port']}"
    try:
        return psycopg.connect(
            host=options["host"],
            port=options["port"],
            user=options["user"],
            password=options["password"],
            dbname=name,
            connect_timeout=module.params["connect_timeout"],
            application_name="tradingsystem.telegram_stack",
            autocommit=True,
            **further,
        )
    except psycopg.OperationalError as error:
        message = f"Cannot connect to {where} as {options['user']}: {str(error).strip()}"
        if _not_set_up(str(error), name):
            raise Unreachable(message) from error
        module.fail_json(msg=message)
        raise


def server_words(error: psycopg.Error) -> str:
    """What the server said in one sentence, or else what the driver says."""
    return error.diag.message_primary or str(error).strip()


def _not_set_up(error: str, database: str) -> bool:
    """libpq gives connection errors no SQLSTATE: the words decide."""
    return (
        f'database "{database}" does not exist' in error
        or "Connection refused" in error
        or "No such file or directory" in error
    )
