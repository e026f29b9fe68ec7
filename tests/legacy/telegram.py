"""A Telegram that has the newest part of every channel of the legacy database: the simulator's, and a file of it.

    python -m tests.legacy.telegram --control http://10.0.0.1:8454 --messages 6000 FOLDER

The simulator must have no message. Ids go on behind the legacy history, which Telegram has deleted long ago. FOLDER
gets `recent.csv`, which `tests.legacy.data` puts into the database, `photos/` as the legacy gateway has kept them, and
`session`, its session. A second run finds them and does nothing.
"""

from __future__ import annotations

import argparse
import csv
import itertools
from pathlib import Path

from tests.legacy.control import Control
from tests.legacy.session import gramjs

from telegram_stack.simulator import photos
from telegram_stack.telegram.convert import unmarked

CHANNELS = 40
RECENT = 200
DAYS = 120
APART = 1009
"""Between the first ids of two channels: what is written meanwhile has a number of its own."""
_PHOTOS = 4
_EDITED = "ATIVO: PETR4\nCOMPRA: 28,50 a 29,10\nALVO FINAL: 33,00\nSTOP: 27,40\n(editado)"
FIELDS = ("channel_id", "message_id", "sent_at", "text", "photo", "edited", "deleted")


def first_id(place: int) -> int:
    """The id of the first message of the channel that is `place` in the list."""
    return 1 + APART * place


def seed(control: Control, messages: int) -> None:
    """Give each channel the newest part of its share of `messages`; every 97th is deleted, every 41st edited."""
    each = messages // CHANNELS
    recent = min(RECENT, each * 2 // 3)
    for place, channel in enumerate(control.ask("GET", "/channels")["channels"]):
        last = first_id(place) + each - 1
        here = {"channel_id": channel["id"]}
        past = {"count": recent, "after_id": last - recent}
        control.ask("POST", "/history", {**here, **past, "seconds": DAYS * 86_400 * recent / each})
        ids = range(last - recent + 1, last + 1)
        for number in (number for number in ids if number % 41 == 0):
            control.ask("POST", "/edits", {**here, "message_id": number, "text": f"{_EDITED}\n\nNº {number}"})
        gone = [number for number in ids if number % 97 == 0]
        control.ask("POST", "/deletes", {**here, "message_ids": gone})


def write(control: Control, path: Path) -> None:
    """Write what Telegram has, and has deleted, into a CSV file."""
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(FIELDS)
        for message in control.messages():
            facts = (message["photo"], message["edit_date"] is not None, message["deleted"])
            rows.writerow(
                (message["channel_id"], message["message_id"], message["date"], message["text"], *map(int, facts))
            )


def keep_photos(recent: Path, folder: Path) -> None:
    """Write the pictures of the first photos of `recent` that Telegram still shows."""
    folder.mkdir(exist_ok=True)
    with recent.open(newline="") as file:
        shown = (row for row in csv.DictReader(file) if row["photo"] == "1" and row["deleted"] == "0")
        for row in itertools.islice(shown, _PHOTOS):
            number = photos.photo_id(unmarked(int(row["channel_id"])), int(row["message_id"]))
            (folder / f"{row['channel_id']}_{row['message_id']}.jpg").write_bytes(photos.jpeg(number))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--control", required=True, help="address of the simulator's control port")
    parser.add_argument("--messages", type=int, default=300_000, help="how many the legacy database will have")
    parser.add_argument("folder", type=Path)
    given = parser.parse_args()
    control = Control(given.control)
    given.folder.mkdir(parents=True, exist_ok=True)
    recent, session = given.folder / "recent.csv", given.folder / "session"
    if not recent.exists():
        missing = CHANNELS - len(control.ask("GET", "/channels")["channels"])
        control.ask("POST", "/channels", {"title": "Sinais", "count": max(0, missing)})
        seed(control, given.messages)
        write(control, recent)
        keep_photos(recent, given.folder / "photos")
    if not session.exists():
        session.touch(mode=0o600)
        session.write_text(gramjs(control.ask("POST", "/sessions", {})["session"]))


if __name__ == "__main__":
    main()
