"""Who is signed in: a cookie that stands for a token for some hours, signed with what only the API knows of it."""

from __future__ import annotations

import hashlib
import hmac
import re
import time
from collections.abc import Callable
from urllib.parse import urlsplit

from starlette.datastructures import Headers

from telegram_stack.api.tokens import Token

COOKIE = "telegram_console"
_VALUE = re.compile(r"([A-Za-z0-9._-]{1,64}):([0-9]{1,12}):([0-9a-f]{64})")


class Sessions:
    """Makes and reads cookies ``name:expires:signature``; `expires` is in seconds since the epoch.

    The signature's key is the digest of the token's secret. So nothing is kept on the server, a restart signs nobody
    out, and a token that is taken out of the file takes its sessions with it.
    """

    def __init__(self, tokens: tuple[Token, ...], seconds: int, clock: Callable[[], float] = time.time) -> None:
        self._tokens = tokens
        self.seconds = seconds
        self._clock = clock

    def cookie(self, token: Token) -> str:
        """The value that stands for `token` from now on."""
        expires = int(self._clock()) + self.seconds
        return f"{token.name}:{expires}:{_signature(token, expires)}"

    def token(self, cookie: str) -> Token | None:
        """The token that `cookie` stands for; None when it stands for none, or no longer."""
        found = _VALUE.fullmatch(cookie)
        if found is None or int(found[2]) <= self._clock():
            return None
        name, expires, signature = found[1], int(found[2]), found[3]
        signed = [
            token
            for token in self._tokens
            if token.name == name and hmac.compare_digest(_signature(token, expires), signature)
        ]
        return signed[0] if signed else None


def _signature(token: Token, expires: int) -> str:
    text = f"console session of {token.name} until {expires}"
    return hmac.new(token.digest, text.encode(), hashlib.sha256).hexdigest()


def same_origin(headers: Headers) -> bool:
    """Whether a page of ours has sent the request. Browsers tell it with everything that changes something."""
    origin = headers.get("Origin", "")
    return bool(origin) and urlsplit(origin).netloc.lower() == headers.get("Host", "").lower()


def prefers_html(headers: Headers) -> bool:
    """Whether a browser asks: it names HTML, and wants JSON no more than that."""
    if "HX-Request" in headers:
        return True
    wanted: dict[str, float] = {}
    for part in headers.get("Accept", "").split(","):
        media, *parameters = [piece.strip().lower() for piece in part.split(";")]
        quality = next((piece[2:] for piece in parameters if piece.startswith("q=")), "1")
        try:
            wanted[media] = float(quality)
        except ValueError:
            wanted[media] = 0.0
    html = wanted.get("text/html", 0.0)
    return html > 0 and html >= wanted.get("application/json", 0.0)
