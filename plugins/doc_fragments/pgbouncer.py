# Copyright: the tradingsystem.telegram_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Connection options shared by the modules that talk to PgBouncer's console."""

from __future__ import annotations


class ModuleDocFragment:
    """Options of `plugins/module_utils/pgbouncer.py`."""

    DOCUMENTATION = r"""
options:
  login_host:
    description:
      - Address of PgBouncer, or the folder of its local socket.
    type: str
    default: /run/pgbouncer
  login_port:
    description:
      - Port of PgBouncer.
    type: int
    default: 6434
  login_user:
    description:
      - User of the console.
      - V(pgbouncer) needs no password over the local socket, when the task runs as PgBouncer's own system user.
    type: str
    default: pgbouncer
  login_password:
    description:
      - Password of O(login_user), where PgBouncer asks for one.
    type: str
  connect_timeout:
    description:
      - Seconds to wait for PgBouncer.
    type: int
    default: 10
requirements:
  - psycopg >= 3.1 on the managed host (Debian package C(python3-psycopg))
notes:
  - Works with PgBouncer 1.18 and newer.
"""
