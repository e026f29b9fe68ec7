# Copyright: the tradingsystem.telegram_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Connection options shared by the modules that talk to PostgreSQL."""

from __future__ import annotations


class ModuleDocFragment:
    """Options of `plugins/module_utils/postgresql.py`."""

    DOCUMENTATION = r"""
options:
  login_host:
    description:
      - Address of the server, or the folder of its local socket.
    type: str
    default: /run/postgresql
  login_port:
    description:
      - Port of the server.
    type: int
    default: 5434
  login_user:
    description:
      - Role to log in as. Over the local socket the server recognises the system's user (peer).
    type: str
    default: postgres
  login_password:
    description:
      - Password of O(login_user), where the server asks for one.
    type: str
  login_db:
    description:
      - Database to connect to.
    type: str
    default: telegram_gateway
  connect_timeout:
    description:
      - Seconds to wait for the server.
    type: int
    default: 10
requirements:
  - psycopg >= 3.1 on the managed host (Debian package C(python3-psycopg))
"""
