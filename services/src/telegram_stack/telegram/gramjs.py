"""Sessions of GramJS, the legacy gateway's library: the same key in other clothes, so that no new log-in is needed.

Its string is the version ``1`` and, in base64: one byte data centre, two bytes length of the address, the address as
text (IP or name), two bytes port, 256 bytes key. Telethon packs the address as 4 or 16 bytes. Source: `StringSession`
of either library.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress

from telethon.crypto import AuthKey
from telethon.sessions import StringSession

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


def to_telethon(session: str) -> str:
    """`session` as Telethon writes it; returned as it is when it is none of GramJS. Never raises."""
    raw = _decoded(session)
    size = int.from_bytes(raw[1:3], "big")
    if len(raw) != 5 + size + _KEY_BYTES:
        return session
    address = _address(raw[0], raw[3 : 3 + size])
    if address is None:
        return session
    converted = StringSession()
    converted.set_dc(raw[0], address, int.from_bytes(raw[3 + size : 5 + size], "big"))
    converted.auth_key = AuthKey(raw[-_KEY_BYTES:])
    return str(converted.save())


def _decoded(session: str) -> bytes:
    if not session.startswith(_VERSION):
        return b""
    try:
        return base64.b64decode(session[1:], validate=True)
    except (binascii.Error, ValueError):  # ValueError: it is not ASCII
        return b""


def _address(data_centre: int, text: bytes) -> str | None:
    try:
        return str(ipaddress.ip_address(text.decode("ascii")))
    except ValueError:
        return _DATA_CENTRES.get(data_centre) if text.isascii() and b"." in text else None
