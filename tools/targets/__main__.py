"""Entry point of `python3 -m tools.targets`."""

import sys

from tools.bootstrap import check_python

check_python()

from tools.targets.cli import main  # noqa: E402 - an older Python could not read it

sys.exit(main(sys.argv[1:]))
