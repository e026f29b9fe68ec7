# Copyright: the tradingsystem.telegram_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Telegram sessions as strings: one key in the clothes of two libraries, so that no new log-in is needed.

Both write the version ``1`` and, in base64, one byte data centre, the address, two bytes port and 256 bytes key.
GramJS, the legacy gateway's library, has the address as text (IP or name) behind two bytes of its length; Telethon
packs it as 4 or 16 bytes, in URL-safe base64. Source: `StringSession` of either library.

The services use this file by a link, hence only Python's own library here.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
from hashlib import sha256
from typing import NamedTuple

_VERSION = "1"
_KEY_BYTES = 256
_DATA_CENTRES = {
    1: "149.154.175.53",
    2: "149.154.167.51",
    3: "149.154.175.100",
    4: "149.154.167.91",
    5: "91.108.56.130",
}
"""Telegram's own, for sessions that name theirs: Telethon knows addresses only."""


class Session(NamedTuple):
    """What a string session says."""

    dc_id: int
    address: str
    port: int
    key: bytes

    @property
    def fingerprint(self) -> str:
        """The same for the same key in whatever form, and nobody gets to the key from it."""
        return sha256(self.key).hexdigest()[:16]

    def telethon(self) -> str:
        """As Telethon writes it."""
        packed = ipaddress.ip_address(self.address).packed
        return _VERSION + base64.urlsafe_b64encode(self._packed(packed)).decode()

    def gramjs(self) -> str:
        """As GramJS writes it."""
        name = self.address.encode()
        return _VERSION + base64.b64encode(self._packed(len(name).to_bytes(2, "big") + name)).decode()

    def _packed(self, address: bytes) -> bytes:
        return bytes([self.dc_id]) + address + self.port.to_bytes(2, "big") + self.key


def of_gramjs(text: str) -> Session | None:
    """The session of a string that GramJS has written; None for anything else. Never raises."""
    raw = _decoded(text, b"+/")
    size = int.from_bytes(raw[1:3], "big")
    if len(raw) != 5 + size + _KEY_BYTES:
        return None
    address = _address(raw[0], raw[3 : 3 + size])
    port = int.from_bytes(raw[3 + size : 5 + size], "big")
    return None if address is None else Session(raw[0], address, port, raw[-_KEY_BYTES:])


def of_telethon(text: str) -> Session | None:
    """The session of a string that Telethon has written; None for anything else. Never raises."""
    raw = _decoded(text, b"-_")
    size = len(raw) - 3 - _KEY_BYTES
    if size not in (4, 16):
        return None
    address = str(ipaddress.ip_address(raw[1 : 1 + size]))
    return Session(raw[0], address, int.from_bytes(raw[1 + size : 3 + size], "big"), raw[-_KEY_BYTES:])


def to_telethon(text: str) -> str:
    """`text` as Telethon writes it; returned as it is when it is none of GramJS. Never raises."""
    session = of_gramjs(text)
    return text if session is None else session.telethon()


def _decoded(text: str, alphabet: bytes) -> bytes:
    if not text.startswith(_VERSION):
        return b""
    try:
        return base64.b64decode(text[1:], alphabet, validate=True)
    except (binascii.Error, ValueError):  # ValueError: it is not ASCII
        return b""


def _address(data_centre: int, text: bytes) -> str | None:
    try:
        return str(ipaddress.ip_address(text.decode("ascii")))
    except ValueError:
        return _DATA_CENTRES.get(data_centre) if text.isascii() and b"." in text else None
