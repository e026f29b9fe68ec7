"""Filter `new_secret`: random values in the form that the receiving program wants."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Callable

DOCUMENTATION = r"""
name: new_secret
short_description: Makes a new random secret for a name
version_added: 0.1.0
author: Telegram hybrid stack maintainers
description:
  - Returns 32 random letters, digits, C(-) and C(_).
  - A name that ends in C(_session_key) gets a Fernet key (32 random bytes in URL-safe base64) instead.
  - One that ends in C(_ca_key) gets a private key of the curve P-256, in PEM, to sign certificates with.
positional: _input
options:
  _input:
    description: The name of the secret.
    type: str
    required: true
"""
EXAMPLES = r"""
- name: Make a password that is never shown
  ansible.builtin.set_fact:
    database_password: "{{ 'postgres_owner' | tradingsystem.telegram_stack.new_secret }}"
  no_log: true
"""
RETURN = r"""
_value:
  description: The secret.
  type: str
"""


# RFC 5915: version 1, the number, and the name of the curve; whoever reads it computes the public part.
_P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
_BEFORE = bytes.fromhex("30310201010420")
_BEHIND = bytes.fromhex("a00a06082a8648ce3d030107")


def _private_key() -> str:
    number = secrets.randbelow(_P256_ORDER - 1) + 1
    encoded = base64.encodebytes(_BEFORE + number.to_bytes(32, "big") + _BEHIND).decode()
    return f"-----BEGIN EC PRIVATE KEY-----\n{encoded}-----END EC PRIVATE KEY-----\n"


def new_secret(name: str) -> str:
    """A fresh secret of 192 bits or more for `name`."""
    if name.endswith("_session_key"):
        return base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()
    if name.endswith("_ca_key"):
        return _private_key()
    return secrets.token_urlsafe(24)


class FilterModule:
    """Filters of the collection that make secrets."""

    def filters(self) -> dict[str, Callable[[str], str]]:
        """The filters by name."""
        return {"new_secret": new_secret}
