"""Photos: small real JPEG files, each with its number inside, so that no two are equal."""

from __future__ import annotations

import struct

WIDTH, HEIGHT = 320, 240

# One grey plane. Its Huffman tables know one symbol each, with the code 0: "no difference to the block before"
# and "end of block", so a block is two zero bits.
_QUANTISATION = b"\xff\xdb" + struct.pack(">HB", 67, 0) + bytes([16] * 64)
_FRAME = b"\xff\xc0" + struct.pack(">HBHHBBBB", 11, 8, HEIGHT, WIDTH, 1, 1, 0x11, 0)
_TABLES = b"".join(
    b"\xff\xc4" + struct.pack(">HB", 20, table) + bytes([1] + [0] * 15) + b"\x00" for table in (0x00, 0x10)
)
_SCAN = b"\xff\xda" + struct.pack(">HBBBBBB", 8, 1, 1, 0, 0, 63, 0) + bytes(WIDTH // 8 * (HEIGHT // 8) * 2 // 8)
_JFIF = b"\xff\xe0" + struct.pack(">H5sHBHHBB", 16, b"JFIF\0", 0x0102, 0, 1, 1, 0, 0)


def photo_id(channel_id: int, message_id: int) -> int:
    """The id of the photo of one message."""
    return channel_id << 24 | message_id


def jpeg(photo: int) -> bytes:
    """The file with id `photo`: 320 x 240, grey, the id in its comment."""
    comment = b"%020d" % photo
    head = b"\xff\xd8" + _JFIF + b"\xff\xfe" + struct.pack(">H", len(comment) + 2) + comment
    return head + _QUANTISATION + _FRAME + _TABLES + _SCAN + b"\xff\xd9"
