"""The legacy gateway's folder as one archive: session, failure queue, photos, and the modules of the programs.

    python -m tests.legacy.home FOLDER

FOLDER has what `tests.legacy.telegram` and `tests.legacy.data` made, and gets `home.tar`.
"""

from __future__ import annotations

import argparse
import tarfile
from collections.abc import Iterator
from pathlib import Path

from tests.legacy.settings import FAILURE_QUEUE, SESSION

PHOTOS = Path("cache/photos")
_MODULES = ("settings", "store", "gateway", "api", "consumer", "control", "ledger")
_FOLDERS = ("data", "cache", "cache/photos", ".session", "tests", "tests/legacy")


def contents(folder: Path) -> Iterator[tuple[Path, Path, int]]:
    """Name in the archive, file, mode."""
    yield SESSION, folder / "session", 0o600
    yield FAILURE_QUEUE, folder / "failure-queue.jsonl", 0o600
    for photo in sorted((folder / "photos").iterdir()):
        yield PHOTOS / photo.name, photo, 0o644
    for name in _MODULES:
        yield Path(f"tests/legacy/{name}.py"), Path(__file__).with_name(f"{name}.py"), 0o644


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args().folder
    archive = folder / "home.tar"
    archive.touch(mode=0o600)
    with tarfile.open(archive, "w") as tar:
        for name in _FOLDERS:
            member = tarfile.TarInfo(name)
            member.type, member.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(member)
        for name_there, file, mode in contents(folder):
            member = tarfile.TarInfo(str(name_there))
            member.mode, member.size = mode, file.stat().st_size
            with file.open("rb") as content:
                tar.addfile(member, content)


if __name__ == "__main__":
    main()
