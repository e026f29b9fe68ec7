"""PlantUML's diagrams: where they are shown, and their pictures."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from tools.docs import DOCS

FOLDER = DOCS / "diagrams"
_SHOWN = re.compile(r"^\[(?P<title>[^\]]+)\]\((?P<path>[^)\s]*diagrams/[\w-]+)\.puml\)$", re.MULTILINE)


def sources() -> list[Path]:
    """Every diagram."""
    return sorted(FOLDER.glob("*.puml"))


def shown(markdown: str) -> set[str]:
    """The diagrams that a page shows: links to their sources, each alone on its line."""
    return {Path(match["path"]).name for match in _SHOWN.finditer(markdown)}


def as_pictures(markdown: str) -> str:
    """The page with pictures in place of these links, by which the forge leads to a source: it draws no PlantUML."""
    return _SHOWN.sub(r"![\g<title>](\g<path>.svg)", markdown)


def draw(folder: Path) -> None:
    """Write each diagram as SVG into `folder`. Raises RuntimeError with PlantUML's words."""
    command = ["plantuml", "-charset", "UTF-8", "-failfast2", "-tsvg", "-o", str(folder), *map(str, sources())]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(
            f"PlantUML cannot draw a diagram of {FOLDER}; mend what it names: {done.stdout}{done.stderr}"
        )
