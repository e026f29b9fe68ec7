"""Who may do what: named tokens with a scope, compared in constant time."""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import dataclass
from enum import IntEnum

from starlette.datastructures import Headers

HEADERS = ("X-Gateway-Token", "X-API-Token", "X-API-Key")
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")


class Scope(IntEnum):
    """Each scope includes those before it."""

    READ = 1
    WRITE = 2
    ADMIN = 3


@dataclass(frozen=True)
class Token:
    """One client's key."""

    name: str
    scope: Scope
    digest: bytes
    """SHA-256 of the secret."""

    def __repr__(self) -> str:
        """Without the secret."""
        return f"Token({self.name}, {self.scope.name})"


class TokenFileError(ValueError):
    """A line is not ``name:scope:token``; the message names the line's number, not what it holds."""


def parse_tokens(text: str) -> tuple[Token, ...]:
    """Read ``name:scope:token`` lines; empty lines and those that begin with ``#`` do not count.

    Several lines may have one name, so that a client's token can be changed without a gap.
    Raises TokenFileError.
    """
    tokens = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        name, scope, secret = [part.strip() for part in [*line.split(":", 2), "", ""][:3]]
        if not _NAME.fullmatch(name) or scope.upper() not in Scope.__members__ or len(secret) < 16:
            raise TokenFileError(
                f"line {number} is not name:scope:token with scope read, write or admin and a token of 16 characters"
            )
        tokens.append(Token(name, Scope[scope.upper()], hashlib.sha256(secret.encode()).digest()))
    if not tokens:
        raise TokenFileError("there is no token: nobody could use the API")
    return tuple(tokens)


def presented(headers: Headers) -> str | None:
    """The token that a request brings, in any of the known headers."""
    for name in HEADERS:
        if value := headers.get(name):
            return value.strip()
    scheme, _, value = headers.get("Authorization", "").partition(" ")
    return value.strip() or None if scheme.lower() == "bearer" else None


def find(tokens: tuple[Token, ...], secret: str) -> Token | None:
    """The token whose secret this is. Takes the same time wherever, and whether, it is in the list.

    Digests are compared: of the secrets themselves the time would tell the length.
    """
    found, given = None, hashlib.sha256(secret.encode()).digest()
    for token in tokens:
        if hmac.compare_digest(token.digest, given):
            found = token
    return found
