"""Entry point of `python3 -m tools.targets`."""

import sys

from tools.targets.cli import main

sys.exit(main(sys.argv[1:]))
