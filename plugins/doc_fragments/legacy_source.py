# Copyright: the tradingsystem.telegram_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Options shared by the modules that read the legacy database."""

from __future__ import annotations


class ModuleDocFragment:
    """Options of `plugins/module_utils/legacy_source.py`."""

    DOCUMENTATION = r"""
options:
  source_host:
    description:
      - Address of the legacy server as the managed host reaches it, or the folder of its local socket.
    type: str
    required: true
  source_port:
    description:
      - Port of the legacy server.
    type: int
    default: 5432
  source_user:
    description:
      - Role to read as. It needs C(SELECT) on O(source_table) alone.
    type: str
    required: true
  source_password:
    description:
      - Password of O(source_user), where the server asks for one.
    type: str
  source_db:
    description:
      - The legacy database.
    type: str
    required: true
  source_table:
    description:
      - The legacy table of messages, with its schema.
    type: str
    default: telegram_gateway.messages
  seconds:
    description:
      - How long one run works, at least one window. Looking the windows up comes before and is not counted.
    type: float
    default: 20
  owner:
    description:
      - Role that owns the schema and is worked as.
    type: str
    default: telegram_owner
notes:
  - Connect to the server itself, not through PgBouncer.
"""
