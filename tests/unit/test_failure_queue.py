"""Lines of the legacy gateway's failure queue as rows of its table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from plugins.module_utils.failure_queue import COLUMNS, LINES_PER_WINDOW, BrokenLine, row, windows

DATE = "2026-01-02T03:04:05+00:00"


def read(message: dict[str, Any]) -> dict[str, Any]:
    return dict(zip(COLUMNS, row(json.dumps(message).encode()), strict=True))


@pytest.mark.parametrize(
    "message",
    [
        {"channelId": "-1001", "messageId": 7, "telegramDate": DATE, "mediaRefs": [{"fileId": "1"}], "threadId": "5"},
        {
            "channel_id": -1001,
            "message_id": "7",
            "telegram_date": DATE,
            "media_refs": [{"fileId": "1"}],
            "thread_id": 5,
        },
        {
            "error": "no endpoint",
            "message": {
                "chatId": -1001,
                "messageId": 7,
                "date": 1767323045,
                "mediaRefs": [{"fileId": "1"}],
                "threadId": 5,
            },
        },
        {"channelId": -1001, "messageId": 7, "date": 1767323045000, "mediaRefs": [{"fileId": "1"}], "threadId": 5},
    ],
)
def test_a_message_is_read_however_its_fields_are_called(message: dict[str, Any]) -> None:
    found = read(message)
    assert (found["channel_id"], found["message_id"], found["thread_id"]) == ("-1001", "7", 5)
    assert (found["telegram_date"], json.loads(found["media_refs"])) == (DATE, [{"fileId": "1"}])


def test_the_same_line_is_the_same_row() -> None:
    one, again, other = (row(line)[0] for line in (b'{"messageId": 1}', b'{"messageId": 1}', b'{"messageId": 2}'))
    assert one == again != other


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"channelId": 1, "mess', "the line is cut off or no JSON"),
        (b"\xff\xfe", "the line is cut off or no JSON"),
        (b"[1]", "the line is no message"),
        (b"1" * (1 << 20) + b"1", "the line has 1048577 bytes"),
    ],
)
def test_a_broken_line_says_why(line: bytes, reason: str) -> None:
    with pytest.raises(BrokenLine, match=reason):
        row(line)


def test_what_no_database_keeps_is_left_out() -> None:
    found = read({"text": "a\0b\ud800", "metadata": {"x\0": "\udfff"}, "threadId": "x", "receivedAt": "yesterday"})
    assert (found["text"], json.loads(found["metadata"])) == ("ab?", {"x": "?"})
    assert (found["thread_id"], found["received_at"]) == (None, None)
    assert read({"date": 1e300})["telegram_date"] is None


def test_a_window_changes_with_its_lines_alone(tmp_path: Path) -> None:
    file = tmp_path / "queue.jsonl"
    lines = [f'{{"messageId": {number}}}\n' for number in range(LINES_PER_WINDOW + 3)]
    file.write_text("".join(lines))
    first, last = windows(str(file))
    assert (first.start, len(first.lines)) == ("line 000000000001", LINES_PER_WINDOW)
    assert (last.start, len(last.lines)) == (f"line {LINES_PER_WINDOW + 1:012d}", 3)
    file.write_text("".join([*lines, "{}\n"]))
    grown = list(windows(str(file)))
    assert [window.checksum == before.checksum for window, before in zip(grown, (first, last), strict=True)] == [
        True,
        False,
    ]
