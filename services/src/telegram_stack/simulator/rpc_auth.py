"""Log-in by code and by password, log-out, and what a client asks before anything else."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
from typing import Any

from telethon.password import compute_digest
from telethon.tl import functions, types

from telegram_stack.simulator import objects
from telegram_stack.simulator.handshake import DH_GENERATOR, DH_PRIME
from telegram_stack.simulator.model import BOT, Account
from telegram_stack.simulator.rpc import Call, Handler, RpcError

CODE_LIFETIME = 300.0
"""Seconds for which a login code is good."""


def get_config(call: Call, _request: Any) -> Any:
    """help.getConfig."""
    return objects.config(*call.local_address, int(call.server.store.clock()))


def send_code(call: Call, request: Any) -> Any:
    """auth.sendCode and auth.resendCode: the code is read at the control port."""
    phone = _phone(request.phone_number)
    code = call.server.store.new_code(phone)
    return types.auth.SentCode(
        type=types.auth.SentCodeTypeApp(length=len(code.code)), phone_code_hash=code.hash, timeout=60
    )


def cancel_code(call: Call, request: Any) -> bool:
    """auth.cancelCode."""
    call.server.store.drop_code(_phone(request.phone_number))
    return True


def sign_in(call: Call, request: Any) -> Any:
    """auth.signIn."""
    store = call.server.store
    phone = _phone(request.phone_number)
    sent = store.code(phone)
    if sent is None or sent.hash != request.phone_code_hash or store.clock() > sent.sent_at + CODE_LIFETIME:
        raise RpcError(400, "PHONE_CODE_EXPIRED")
    if not request.phone_code:
        raise RpcError(400, "PHONE_CODE_EMPTY")
    if request.phone_code != sent.code:
        raise RpcError(400, "PHONE_CODE_INVALID")
    store.drop_code(phone)
    account = store.account(phone)
    store.authorise(call.key, account.id, awaits_password=account.verifier is not None)
    if account.verifier is not None:
        raise RpcError(401, "SESSION_PASSWORD_NEEDED")
    return types.auth.Authorization(user=objects.user(store, account))


def import_bot(call: Call, request: Any) -> Any:
    """auth.importBotAuthorization: every token belongs to some bot."""
    if not re.fullmatch(r"\d+:[\w-]{10,}", request.bot_auth_token):
        raise RpcError(400, "ACCESS_TOKEN_INVALID")
    store = call.server.store
    account = store.account(BOT + request.bot_auth_token)
    store.authorise(call.key, account.id)
    return types.auth.Authorization(user=objects.user(store, account))


def get_password(call: Call, _request: Any) -> Any:
    """account.getPassword: the parameters of the password check (SRP)."""
    account = _half_way_in(call)
    server = call.server
    unknown = types.PasswordKdfAlgoUnknown()
    common = {
        "new_algo": unknown,
        "new_secure_algo": types.SecurePasswordKdfAlgoUnknown(),
        "secure_random": os.urandom(256),
    }
    if account.verifier is None or account.salt1 is None or account.salt2 is None:
        return types.account.Password(**common, has_password=False)
    secret = secrets.randbits(2048)
    b = (_multiplier() * _number(account.verifier) + pow(DH_GENERATOR, secret, DH_PRIME)) % DH_PRIME
    srp_id = secrets.randbits(62)
    server.password_checks[call.key.id] = (srp_id, secret, _padded(b))
    return types.account.Password(
        **common,
        has_password=True,
        current_algo=_algorithm(account.salt1, account.salt2),
        srp_B=_padded(b),
        srp_id=srp_id,
    )


def check_password(call: Call, request: Any) -> Any:
    """auth.checkPassword: the server's half of SRP, see https://core.telegram.org/api/srp."""
    account = _half_way_in(call)
    if account.verifier is None or account.salt1 is None or account.salt2 is None:
        raise RpcError(400, "PASSWORD_EMPTY")
    srp_id, secret, b = call.server.password_checks.pop(call.key.id, (0, 0, b""))
    proof = request.password
    if not isinstance(proof, types.InputCheckPasswordSRP) or not srp_id or proof.srp_id != srp_id:
        raise RpcError(400, "SRP_ID_INVALID")
    a = _number(proof.A)
    if not 1 < a < DH_PRIME - 1:
        raise RpcError(400, "SRP_A_INVALID")
    u = _number(_sha256(_padded(a), b))
    shared = pow(a * pow(_number(account.verifier), u, DH_PRIME), secret, DH_PRIME)
    hashed_parameters = _number(_sha256(_padded(DH_PRIME))) ^ _number(_sha256(_padded(DH_GENERATOR)))
    expected = _sha256(
        hashed_parameters.to_bytes(32, "big"),
        _sha256(account.salt1),
        _sha256(account.salt2),
        _padded(a),
        b,
        _sha256(_padded(shared)),
    )
    if not secrets.compare_digest(expected, proof.M1):
        raise RpcError(400, "PASSWORD_HASH_INVALID")
    call.server.store.authorise(call.key, account.id)
    return types.auth.Authorization(user=objects.user(call.server.store, account))


def log_out(call: Call, _request: Any) -> Any:
    """auth.logOut."""
    call.server.store.authorise(call.key, None)
    return types.auth.LoggedOut()


def password_verifier(password: str) -> tuple[bytes, bytes, bytes]:
    """Both salts and the SRP verifier that an account with this password keeps."""
    salt1, salt2 = os.urandom(16), os.urandom(16)
    return salt1, salt2, compute_digest(_algorithm(salt1, salt2), password)


def _half_way_in(call: Call) -> Account:
    if call.key.account_id is None:
        raise RpcError(401, "AUTH_KEY_UNREGISTERED")
    return call.server.store.account_by_id(call.key.account_id)


def _phone(given: str) -> str:
    digits = "".join(filter(str.isdigit, given))
    if not 7 <= len(digits) <= 15:
        raise RpcError(400, "PHONE_NUMBER_INVALID")
    return digits


def _algorithm(salt1: bytes, salt2: bytes) -> Any:
    return types.PasswordKdfAlgoSHA256SHA256PBKDF2HMACSHA512iter100000SHA256ModPow(
        salt1=salt1, salt2=salt2, g=DH_GENERATOR, p=_padded(DH_PRIME)
    )


def _multiplier() -> int:
    return _number(_sha256(_padded(DH_PRIME), _padded(DH_GENERATOR)))


def _padded(number: int) -> bytes:
    return number.to_bytes(256, "big")


def _number(raw: bytes) -> int:
    return int.from_bytes(raw, "big")


def _sha256(*parts: bytes) -> bytes:
    return hashlib.sha256(b"".join(parts)).digest()


HANDLERS: dict[type, Handler] = {
    functions.help.GetConfigRequest: get_config,
    functions.auth.ImportBotAuthorizationRequest: import_bot,
    functions.auth.SendCodeRequest: send_code,
    functions.auth.ResendCodeRequest: send_code,
    functions.auth.CancelCodeRequest: cancel_code,
    functions.auth.SignInRequest: sign_in,
    functions.account.GetPasswordRequest: get_password,
    functions.auth.CheckPasswordRequest: check_password,
    functions.auth.LogOutRequest: log_out,
}
