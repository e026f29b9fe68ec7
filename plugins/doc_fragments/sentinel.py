"""Options that every sentinel module has."""

from __future__ import annotations


class ModuleDocFragment:
    """Documentation of the log-in to a sentinel."""

    DOCUMENTATION = r"""
options:
  name:
    description: Name under which the sentinels know the primary.
    type: str
    required: true
  port:
    description: Port of the sentinel.
    type: int
    default: 26379
  login_user:
    description: ACL user of the sentinel (not of Redis); leave it out for the default user.
    type: str
  login_password:
    description: Password of O(login_user).
    type: str
  timeout:
    description: Seconds to wait for a connection and for each answer.
    type: float
    default: 2.0
requirements:
  - The Python library C(redis) 4.3 or newer on the host that runs the module (Debian package C(python3-redis)).
author:
  - Telegram hybrid stack maintainers (@tradingsystem)
"""
