"""Settings of Sphinx for `make docs`. What is our own beside the extensions is in sphinx/."""

import logging
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "sphinx"))

import milter  # noqa: E402
from hawkmoth.util.compiler import get_include_args  # noqa: E402
from headers import doc_form, linked  # noqa: E402
from modules import SUBSTITUTIONS  # noqa: E402

project = "Milterkit"
author = "the authors of Milterkit"
project_copyright = f"{author}, MIT licence"
version = release = milter._version

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "hawkmoth",
    "sphinxarg.ext",
    "complete",
    "docstrings",
    "pictures",
]
exclude_patterns = ["sphinx"]

# Pages: plain Markdown, as a code host shows it. Fences named mermaid are pictures.
source_suffix = {".md": "markdown"}
myst_enable_extensions = ["substitution"]
myst_heading_anchors = 4
myst_fence_as_directive = ["mermaid"]
myst_substitutions = SUBSTITUTIONS

smartquotes = False  # "i" is what to type

# Docstrings. `name` is a link where there is such a name, else it is code.
default_role = "py:obj"
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True}
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
add_function_parentheses = False
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
toc_object_entries_show_parents = "hide"

# The C API: the headers, in the form that hawkmoth reads.
hawkmoth_root = str(doc_form(HERE.parent / "include", HERE.parent / "build/docs-headers"))
hawkmoth_autoconf = []  # it would ask for C++ as well, which need not be there
hawkmoth_clang = [f"-I{hawkmoth_root}", "-std=c17", *get_include_args("cc", "c")]

# Every name of ours that is referred to must be there. The documentation of others is not at hand
# without a network.
nitpicky = True
nitpick_ignore_regex = [
    ("py:obj", ".*"),
    ("py:.*", r"(?!(?:Milter|milter|mime)\.)\w+\..*"),
    ("py:class", r".*[._](_\w+|[A-Z])"),  # our own, private: protocols and type variables
    (
        "py:class",
        r"mime\.(parse\.Origin|headers\.HeaderFields)|Milter\.testing\.("
        r"mta\.AnyMTA|session\.AnySession|target\.Link|draft\.Header|trace\.Trace|table\.Row)",
    ),
    ("c:identifier", r"s?size_t|u?int\d+_t|\w+_t|bool|sockaddr\w*"),
]

graphviz_output_format = "svg"
html_theme = "furo"
html_title = f"Milterkit {release}"
html_copy_source = False
html_show_sphinx = False


def setup(app):  # type: ignore[no-untyped-def]
    """Called by Sphinx."""
    app.connect("hawkmoth-process-docstring", linked)
    logging.getLogger("Milter").setLevel(logging.ERROR)
