# Copyright: Telegram hybrid stack maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The little of the Redis protocol (RESP2) that a health check needs: hosts have no Redis library."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import IO, Any

from .health import NoAnswer

LONGEST_REPLY = 1 << 20


@contextmanager
def redis_connection(host: str, port: int, user: str, password: str, timeout: float) -> Iterator[RedisConnection]:
    """A connection to a Redis server or a sentinel, logged in where there is a `password`.

    It raises NoAnswer for refusals and for what is not RESP, OSError when the network fails.
    """
    with socket.create_connection((host, port), timeout) as connected, connected.makefile("rb") as file:
        connection = RedisConnection(f"{host}:{port}", connected, file)
        if password:
            connection.ask("AUTH", *([user] if user else []), password)
        yield connection


class RedisConnection:
    """Questions and answers over one open socket."""

    def __init__(self, where: str, connected: socket.socket, file: IO[bytes]) -> None:
        self._where = where
        self._socket = connected
        self._file = file

    def ask(self, *words: str) -> Any:
        """Send one command and return its reply: str, int, None or a list of them."""
        encoded = [word.encode() for word in words]
        parts = [f"*{len(encoded)}\r\n".encode(), *(b"$%d\r\n%s\r\n" % (len(word), word) for word in encoded)]
        self._socket.sendall(b"".join(parts))
        return self._reply(words[0])

    def _reply(self, command: str) -> Any:
        line = self._file.readline(LONGEST_REPLY)
        if not line.endswith(b"\r\n"):
            raise NoAnswer(f"{self._where} ended the connection instead of answering {command}")
        mark, rest = line[:1], line[1:-2].decode(errors="replace")
        if mark == b"-":
            raise NoAnswer(f"{self._where} refuses {command}: {rest}")
        if mark == b"+":
            return rest
        try:
            size = int(rest)
        except ValueError:
            raise NoAnswer(f"{self._where} does not speak Redis' protocol") from None
        if mark == b":":
            return size
        if mark not in (b"$", b"*") or size > LONGEST_REPLY:
            raise NoAnswer(f"{self._where} does not speak Redis' protocol")
        if size < 0:
            return None
        if mark == b"*":
            return [self._reply(command) for _number in range(size)]
        body = self._file.read(size + 2)
        if len(body) != size + 2:
            raise NoAnswer(f"{self._where} ended the connection within its answer to {command}")
        return body[:-2].decode(errors="replace")


def pairs(flat: object) -> dict[str, str]:
    """The dictionary behind Redis' flat lists of names and values."""
    if not isinstance(flat, Sequence) or isinstance(flat, str) or len(flat) % 2:
        raise NoAnswer("Redis answered something else than names and values")
    return {str(flat[index]): str(flat[index + 1]) for index in range(0, len(flat), 2)}
