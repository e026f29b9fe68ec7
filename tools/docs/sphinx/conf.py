"""Sphinx' settings. The site loads nothing from elsewhere and opens from its folder, without a server."""

import yaml
from tools.docs import ROOT

_galaxy = yaml.safe_load((ROOT / "galaxy.yml").read_text(encoding="utf-8"))

project = "Telegram hybrid stack"
author = copyright = _galaxy["authors"][0]
version = release = _galaxy["version"]
html_title = f"{project} {version}"

extensions = ["myst_parser"]
myst_heading_anchors = 4  # as the forge makes them
suppress_warnings = ["myst.header"]  # a section of an alert may stand a level deeper than what is above it
smartquotes = False  # they would reach into code

html_theme = "furo"
html_static_path = ["."]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
