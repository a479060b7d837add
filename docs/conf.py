# SPDX-License-Identifier: Apache-2.0
"""How Sphinx builds these pages: `make docs`, into build/docs."""

from __future__ import annotations

import logging
import os
import tempfile

# Airflow writes its configuration when autodoc first imports it: not into the reader's home.
_home = tempfile.TemporaryDirectory(prefix="airflow-docs-")
os.environ["AIRFLOW_HOME"] = _home.name
logging.getLogger("airflow").setLevel(logging.WARNING)  # a build says nothing unless something is wrong

from airflow_status_provider import __version__ as release  # noqa: E402

project = "airflow-status-provider"
html_title = f"{project} {release}"
extensions = ["myst_parser", "sphinx.ext.autodoc"]
html_theme = "furo"
pygments_dark_style = "github-dark"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_copyright = False

# Anchors as the forges make them, so that one link is right on both sides.
myst_heading_anchors = 3

autodoc_inherit_docstrings = False  # Airflow's own words for its own methods say nothing here
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88

# `-n` watches over our own names; what other packages define is not to be found without their inventories.
nitpick_ignore_regex = [
    ("py:.*", r"(?!airflow_status_provider\b).*"),
    ("py:.*", r"airflow_status_provider\.(protocols|transport|waiting|simulator|tasks)\b.*"),
]
