"""Entry point of `python3 -m tools.targets`."""

import sys

OLDEST = (3, 11)

if sys.version_info < OLDEST:
    sys.exit(f"Python 3.11 or newer is needed; {sys.executable} is {sys.version.split()[0]}")

from tools.targets.cli import main  # noqa: E402 - an older Python could not read it

sys.exit(main(sys.argv[1:]))
