"""Sphinx: MyST pages, executed by myst-nb; the API from docstrings; the furo theme."""

import importlib.metadata
import os
import sys
from pathlib import Path

project = "pofx"
author = "pofx developers"
project_copyright = f"2026, {author}"
release = importlib.metadata.version("pofx")
version = ".".join(release.split(".")[:2])

sys.path.append(str(Path(__file__).parent / "_ext"))
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.mathjax", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
extensions += ["forked_kernels", "lighter_sphinx"]  # ours, in docs/_ext
exclude_patterns = ["_build"]
root_doc = "index"

html_theme = "furo"
html_title = f"pofx {release}"

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

# Examples run in a scratch folder, every time, and a failing one fails the build.
nb_execution_mode = "force"
nb_execution_in_temp = True
nb_execution_raise_on_error = True
nb_execution_timeout = 400
nb_output_stderr = "remove"
nb_merge_streams = True
nb_render_markdown_format = "myst"  # tables that cells print may link to pages

# Cells call the command line of this environment, without progress bars and colours, on one thread.
os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
os.environ |= {"NO_COLOR": "1", "TERM": "dumb", "COLUMNS": "110", "OMP_NUM_THREADS": "1"}

autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
suppress_warnings = ["ref.python"]  # words such as "events" where docstrings name types
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
napoleon_google_docstring = True
napoleon_numpy_docstring = True
