"""Builds the documents as a site; a warning is an error. usage: python -m tools.docs"""

from __future__ import annotations

import shutil
import subprocess
import sys

from tools.docs import ROOT
from tools.docs.pages import gather

_PAGES = ROOT / ".cache" / "docs"
_SITE = ROOT / "dist" / "docs"


def main() -> int:
    """Gather the pages and let Sphinx make the site of them, from nothing: what did not change could hide a warning."""
    for folder in (_PAGES, _SITE):
        shutil.rmtree(folder, ignore_errors=True)
    gather(_PAGES)
    options = ["--quiet", "--nitpicky", "--fail-on-warning", "--jobs", "auto"]
    settings = ["--conf-dir", str(ROOT / "tools/docs/sphinx"), "--doctree-dir", str(_PAGES / ".doctrees")]
    command = [sys.executable, "-m", "sphinx", *options, *settings, str(_PAGES), str(_SITE)]
    if code := subprocess.run(command, check=False, cwd=ROOT).returncode:
        print("The documents have faults, named above; mend them in docs/, then: make docs", file=sys.stderr)
        return code
    print(f"Open {_SITE.relative_to(ROOT)}/index.html")
    return 0


if __name__ == "__main__":
    sys.exit(main())
