"""The server's half of MTProto 2.0: its RSA key, message encryption, message ids.

Source: https://core.telegram.org/mtproto/description
"""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha1, sha256

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from telethon.crypto import AES

PLAIN_KEY_ID = bytes(8)
KEY_NOT_FOUND = struct.pack("<i", -404)
"""What a server sends instead of a packet when it does not know the client's key."""


class ServerKey:
    """The RSA key that clients have to know before they connect."""

    def __init__(self, pem: bytes) -> None:
        key = serialization.load_pem_private_key(pem, password=None)
        assert isinstance(key, rsa.RSAPrivateKey)
        numbers = key.private_numbers()
        self._d, self._n, self._e = numbers.d, numbers.public_numbers.n, numbers.public_numbers.e
        self.public_pem = (
            key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.PKCS1).decode("ascii")
        )
        """What ``telethon.crypto.rsa.add_key(pem, old=False)`` takes."""

    @staticmethod
    def generate() -> bytes:
        """A new private key as PEM."""
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        return key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    @property
    def fingerprint(self) -> int:
        """The lower 64 bits of SHA-1 over the key, as clients compute it."""
        data = _tl_bytes(self._n) + _tl_bytes(self._e)
        return int.from_bytes(sha1(data).digest()[-8:], "little", signed=True)  # noqa: S324 (the protocol's choice)

    def decrypt(self, block: bytes) -> bytes:
        """Undo RSA: 256 bytes, still padded."""
        return pow(int.from_bytes(block, "big"), self._d, self._n).to_bytes(256, "big")


def unpadded(plain: bytes) -> bytes | None:
    """The 192 bytes in RSA_PAD, the protocol's padding of today; None when it is not that.

    Source: https://core.telegram.org/mtproto/auth_key, step 4.1
    """
    mixed_key, cipher = plain[:32], plain[32:]
    key = bytes(a ^ b for a, b in zip(mixed_key, sha256(cipher).digest(), strict=True))
    mixed = AES.decrypt_ige(cipher, key, bytes(32))
    data = mixed[191::-1]
    return data if sha256(key + data).digest() == mixed[192:] else None


def _tl_bytes(number: int) -> bytes:
    raw = number.to_bytes((number.bit_length() + 7) // 8, "big")
    head = bytes([len(raw)]) if len(raw) < 254 else b"\xfe" + len(raw).to_bytes(3, "little")
    return head + raw + bytes(-(len(head) + len(raw)) % 4)


def auth_key_id(key: bytes) -> bytes:
    """The 8 bytes that stand before every packet encrypted by `key`."""
    return sha1(key).digest()[-8:]  # noqa: S324 (the protocol's choice)


class UndecryptableError(Exception):
    """The packet does not fit its key: dropped, as the protocol demands."""


@dataclass(frozen=True, slots=True)
class Incoming:
    """A decrypted packet from a client. ``body`` is one TL object, possibly a container."""

    salt: int
    session_id: int
    msg_id: int
    seq_no: int
    body: bytes


def decrypt(key: bytes, packet: bytes) -> Incoming:
    """Read what a client encrypted. Raises UndecryptableError."""
    msg_key, cipher = packet[8:24], packet[24:]
    if not cipher or len(cipher) % 16:
        raise UndecryptableError(f"{len(cipher)} encrypted bytes")
    plain = AES.decrypt_ige(cipher, *_aes(key, msg_key, 0))
    if sha256(key[88:120] + plain).digest()[8:24] != msg_key:
        raise UndecryptableError("wrong message key")
    salt, session_id, msg_id, seq_no, length = struct.unpack_from("<qqqii", plain)
    if not 0 <= length <= len(plain) - 32:
        raise UndecryptableError(f"a message of {length} bytes in {len(plain)}")
    return Incoming(salt, session_id, msg_id, seq_no, plain[32 : 32 + length])


def encrypt(key: bytes, salt: int, session_id: int, message: bytes) -> bytes:
    """Encrypt `message` (id, sequence number, length, body) for the client that owns `session_id`."""
    data = struct.pack("<qq", salt, session_id) + message
    data += os.urandom(-(len(data) + 12) % 16 + 12)
    msg_key = sha256(key[96:128] + data).digest()[8:24]
    return auth_key_id(key) + msg_key + bytes(AES.encrypt_ige(data, *_aes(key, msg_key, 8)))


def _aes(key: bytes, msg_key: bytes, x: int) -> tuple[bytes, bytes]:
    a = sha256(msg_key + key[x : x + 36]).digest()
    b = sha256(key[x + 40 : x + 76] + msg_key).digest()
    return a[:8] + b[8:24] + a[24:32], b[:8] + a[8:24] + b[24:32]


class MessageIds:
    """Rising message ids near the clock: ``…01`` for answers, ``…11`` for what the server says unasked."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._last = 0

    def next(self, *, answer: bool) -> int:
        """An id above all given before."""
        stamp = max(int(self._clock() * 2**32) & ~3, (self._last & ~3) + 4)
        self._last = stamp | (1 if answer else 3)
        return self._last
