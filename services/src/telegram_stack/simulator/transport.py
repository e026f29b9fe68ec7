"""The three TCP framings that Telethon speaks: full (its default), intermediate and abridged."""

from __future__ import annotations

import asyncio
import struct
import zlib
from typing import Protocol

_MAX_PACKET = 2 * 1024 * 1024


class BrokenFrameError(Exception):
    """The peer sent bytes that are no frame; the connection cannot go on."""


class Framing(Protocol):
    """How packets are cut out of the byte stream."""

    async def read(self, reader: asyncio.StreamReader) -> bytes:
        """The next packet. Raises IncompleteReadError at the end of the stream, BrokenFrameError for garbage."""

    def frame(self, packet: bytes) -> bytes:
        """`packet` as it goes over the wire."""


class Full:
    """Length, sequence number, packet, CRC-32. Its first frame's length was read to recognise it."""

    def __init__(self, head: bytes) -> None:
        self._head = head
        self._sent = 0

    async def read(self, reader: asyncio.StreamReader) -> bytes:
        """See `Framing`."""
        head = self._head or await reader.readexactly(4)
        self._head = b""
        (length,) = struct.unpack("<I", head)
        if not 12 <= length <= _MAX_PACKET:
            raise BrokenFrameError(f"full frame of {length} bytes")
        rest = await reader.readexactly(length - 4)
        if zlib.crc32(head + rest[:-4]) != struct.unpack("<I", rest[-4:])[0]:
            raise BrokenFrameError("full frame with a wrong checksum")
        return rest[4:-4]

    def frame(self, packet: bytes) -> bytes:
        """See `Framing`."""
        data = struct.pack("<II", len(packet) + 12, self._sent) + packet
        self._sent += 1
        return data + struct.pack("<I", zlib.crc32(data))


class Intermediate:
    """Length, packet."""

    async def read(self, reader: asyncio.StreamReader) -> bytes:
        """See `Framing`."""
        (length,) = struct.unpack("<I", await reader.readexactly(4))
        if length > _MAX_PACKET:
            raise BrokenFrameError(f"intermediate frame of {length} bytes")
        return await reader.readexactly(length)

    def frame(self, packet: bytes) -> bytes:
        """See `Framing`."""
        return struct.pack("<I", len(packet)) + packet


class Abridged:
    """Length in words of 4 bytes, in one byte or four, packet."""

    async def read(self, reader: asyncio.StreamReader) -> bytes:
        """See `Framing`."""
        words = (await reader.readexactly(1))[0]
        if words >= 0x7F:
            words = int.from_bytes(await reader.readexactly(3), "little")
        if words * 4 > _MAX_PACKET:
            raise BrokenFrameError(f"abridged frame of {words} words")
        return await reader.readexactly(words * 4)

    def frame(self, packet: bytes) -> bytes:
        """See `Framing`."""
        words = len(packet) // 4
        head = bytes([words]) if words < 0x7F else b"\x7f" + words.to_bytes(3, "little")
        return head + packet


async def recognise(reader: asyncio.StreamReader) -> Framing:
    """Tell the framing from the first bytes of a connection."""
    first = await reader.readexactly(1)
    if first == b"\xef":
        return Abridged()
    head = first + await reader.readexactly(3)
    if head == b"\xee\xee\xee\xee":
        return Intermediate()
    return Full(head)
