"""The documents as a site, built by `make docs`: what Sphinx does not do by itself.

Sphinx with MyST reads Markdown as the forge does (CommonMark), checks every link and anchor, and is looked after.
The pages stay plain Markdown that the forge shows as well; what only the site has is added while they are gathered.
"""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
