"""Lists the numbered requirements that no test names. usage: python -m tools.requirements"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
STATED = re.compile(r"^\* ([A-Z]{2,3}-\d\d) (.+)$", re.MULTILINE)
NAMED = re.compile(r"requirement\(((?:\s*\"[A-Z]{2,3}-\d\d\",?)+)\s*\)")


def stated(document: str) -> dict[str, str]:
    """The requirements of `document`, their sentences by number."""
    return dict(STATED.findall(document))


def named(folder: Path) -> set[str]:
    """The numbers that tests below `folder` name in a requirement mark."""
    found: set[str] = set()
    for test in folder.rglob("test_*.py"):
        for numbers in NAMED.findall(test.read_text(encoding="utf-8")):
            found |= set(re.findall(r"[A-Z]{2,3}-\d\d", numbers))
    return found


def main() -> int:
    """Print what is missing; 0, because a list is not a failure."""
    wanted = stated((ROOT / "docs" / "requirements.md").read_text(encoding="utf-8"))
    tested = named(ROOT / "tests") | named(ROOT / "molecule")
    for number in sorted(tested - set(wanted)):
        print(f"{number}: named by a test, but not in docs/requirements.md", file=sys.stderr)
    missing = {number: sentence for number, sentence in wanted.items() if number not in tested}
    for number, sentence in missing.items():
        print(f"{number}  {sentence[:100]}")
    print(f"{len(wanted) - len(missing)} of {len(wanted)} requirements have a test.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
