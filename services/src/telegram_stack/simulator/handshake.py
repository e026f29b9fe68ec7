"""The server's side of the key exchange.

Source: https://core.telegram.org/mtproto/auth_key
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from hashlib import sha1
from typing import Any

from telethon import helpers
from telethon.crypto import AES, AuthKey
from telethon.extensions import BinaryReader
from telethon.tl import functions, types

from telegram_stack.simulator.crypto import ServerKey, unpadded

# The two primes of the protocol's own worked example: factorising them is the client's proof of work.
_P, _Q = 1229739323, 1402015859

DH_PRIME = int(
    "c71caeb9c6b1c9048e6c522f70f13f73980d40238e3e21c14934d037563d930f"
    "48198a0aa7c14058229493d22530f4dbfa336f6e0ac925139543aed44cce7c37"
    "20fd51f69458705ac68cd4fe6b6b13abdc9746512969328454f18faf8c595f64"
    "2477fe96bb2a941d5bcd1d4ac8cc49880708fa9b378e3c4f3a9060bee67cf9a4"
    "a4a695811051907e162753b56b0f6b410dba74d8a84b2a14b3144e0ef1284754"
    "fd17ed950d5965b4b9dd46582db1178d169c6bc465b0d6ff9ca3928fef5b9ae4"
    "e418fc15e83ebea0f87fa9ff5eed70050ded2849f47bf959d956850ce929851f"
    "0d8115f635b105ee2e4e15d04b2454bf6f4fadf034b10403119cd8e3b92fcc5b",
    16,
)
"""Telegram's 2048-bit safe prime; clients know it as good and skip a slow check."""

DH_GENERATOR = 3


class HandshakeError(Exception):
    """The client broke the exchange; the connection is closed."""


class Handshake:
    """One exchange. `answer` takes the client's three requests in turn; then `auth_key` holds the result."""

    def __init__(self, server_key: ServerKey, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._server_key = server_key
        self._server_nonce = int.from_bytes(os.urandom(16), "little", signed=True)
        self._nonce = 0
        self._new_nonce = 0
        self._secret = int.from_bytes(os.urandom(256), "big")
        self.auth_key: bytes | None = None

    def answer(self, request: Any) -> Any:
        """The reply to one unencrypted request. Raises HandshakeError."""
        if isinstance(request, functions.ReqPqMultiRequest | functions.ReqPqRequest):
            self._nonce = request.nonce
            return types.ResPQ(
                nonce=self._nonce,
                server_nonce=self._server_nonce,
                pq=(_P * _Q).to_bytes(8, "big"),
                server_public_key_fingerprints=[self._server_key.fingerprint],
            )
        if getattr(request, "server_nonce", None) != self._server_nonce or request.nonce != self._nonce:
            raise HandshakeError(f"{type(request).__name__} with foreign nonces")
        if isinstance(request, functions.ReqDHParamsRequest):
            return self._dh_params(request)
        if isinstance(request, functions.SetClientDHParamsRequest):
            return self._finish(request)
        raise HandshakeError(f"{type(request).__name__} without encryption")

    def _dh_params(self, request: Any) -> Any:
        plain = self._server_key.decrypt(request.encrypted_data)
        data = unpadded(plain)
        inner = _checked(plain[1:]) if data is None else _read(data)[0]  # Telethon pads as of old, others as of today
        if not isinstance(inner, types.PQInnerData | types.PQInnerDataDc) or int.from_bytes(inner.p, "big") != _P:
            raise HandshakeError("p and q are not the factors asked for")
        self._new_nonce = inner.new_nonce
        answer = bytes(
            types.ServerDHInnerData(
                nonce=self._nonce,
                server_nonce=self._server_nonce,
                g=DH_GENERATOR,
                dh_prime=DH_PRIME.to_bytes(256, "big"),
                g_a=pow(DH_GENERATOR, self._secret, DH_PRIME).to_bytes(256, "big"),
                server_time=int(self._clock()),
            )
        )
        plain = sha1(answer).digest() + answer  # noqa: S324 (the protocol's choice)
        plain += os.urandom(-len(plain) % 16)
        return types.ServerDHParamsOk(
            nonce=self._nonce,
            server_nonce=self._server_nonce,
            encrypted_answer=AES.encrypt_ige(plain, *self._aes()),
        )

    def _finish(self, request: Any) -> Any:
        inner = _checked(AES.decrypt_ige(request.encrypted_data, *self._aes()))
        key = pow(int.from_bytes(inner.g_b, "big"), self._secret, DH_PRIME).to_bytes(256, "big")
        nonces = {"nonce": self._nonce, "server_nonce": self._server_nonce}
        if key[0] == 0:  # Telethon would cut the leading zero off and end up with another key: let it try again
            retry = AuthKey(key.lstrip(b"\0")).calc_new_nonce_hash(self._new_nonce, 2)
            return types.DhGenRetry(**nonces, new_nonce_hash2=retry)
        self.auth_key = key
        return types.DhGenOk(**nonces, new_nonce_hash1=AuthKey(key).calc_new_nonce_hash(self._new_nonce, 1))

    def _aes(self) -> tuple[bytes, bytes]:
        key, iv = helpers.generate_key_data_from_nonce(self._server_nonce, self._new_nonce)
        return key, iv


def _checked(plain: bytes) -> Any:
    """The TL object behind its SHA-1; padding follows it."""
    inner, length = _read(plain[20:])
    if sha1(plain[20 : 20 + length]).digest() != plain[:20]:  # noqa: S324 (the protocol's choice)
        raise HandshakeError("wrong SHA-1 of the inner data")
    return inner


def _read(data: bytes) -> tuple[Any, int]:
    """The TL object at the begin of `data`, and its length."""
    with BinaryReader(data) as reader:
        return reader.tgread_object(), reader.tell_position()
