"""Sphinx configuration."""

import os
import re
import warnings
from importlib.metadata import version as package_version

from docutils.nodes import SkipNode
from docutils.utils.math.latex2mathml import tex2mathml

project = "skebm"
author = "skebm developers"
copyright = "skebm developers"
release = package_version("skebm")
version = release

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "numpydoc",
    "myst_parser",
    "sphinx_copybutton",
    "sphinx_gallery.gen_gallery",
]
templates_path = ["_templates"]
exclude_patterns = ["_build", "_templates", "changes"]

# Links into other projects' docs need the network, so they are asked for by name.
if os.environ.get("SKEBM_DOCS_INTERSPHINX"):
    extensions.append("sphinx.ext.intersphinx")
    intersphinx_mapping = {
        "python": ("https://docs.python.org/3", None),
        "numpy": ("https://numpy.org/doc/stable", None),
        "sklearn": ("https://scikit-learn.org/stable", None),
        "torch": ("https://docs.pytorch.org/docs/stable", None),
    }

autosummary_generate = True
autodoc_member_order = "bysource"
autodoc_typehints = "none"
numpydoc_show_class_members = False
myst_heading_anchors = 3
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "auto_examples",
    "filename_pattern": "plot_",
    "capture_repr": (),
    "download_all_examples": False,
    "remove_config_comments": True,
    "show_memory": False,
    "show_signature": False,
}

html_theme = "pydata_sphinx_theme"
html_title = "skebm"
html_math_renderer = "mathml"
html_sidebars = {
    page: [] for page in ["getting_started", "choosing", "user_guide/*", "developing"]
}
html_show_sourcelink = False
html_theme_options = {
    "navbar_end": ["theme-switcher"],
    "secondary_sidebar_items": ["page-toc"],
    "show_toc_level": 2,
}

warnings.filterwarnings("ignore", message="FigureCanvasAgg is non-interactive")


def skip_inherited_from_others(app, what, name, obj, skip, options):
    """Leave out what other packages document themselves."""
    home = getattr(obj, "__module__", None) or ""
    return True if home.startswith(("sklearn.", "torch.", "pyod.")) else None


FORMULA_SIGNS = re.compile(
    r"(?P<code>``.+?``|`.+?`)"  # left as it is
    r"|(?P<bar>\|)"  # a norm, not a substitution
    r"|(?<![\w\]])(?P<name>[A-Za-z]\w*)_(?![\w:]| :)"  # an attribute, not a link
)


def escape_formulas(app, what, name, obj, options, lines):
    """Let docstrings hold formulas as plain text: |x - y|, energy_ and the like."""

    def escape(match):
        if match["code"]:
            return match["code"]
        return r"\|" if match["bar"] else rf"{match['name']}\_"

    examples = lines.index("Examples") if "Examples" in lines else len(lines)
    lines[:examples] = [FORMULA_SIGNS.sub(escape, line) for line in lines[:examples]]


def inline_formula(writer, node):
    """Write MathML, which browsers draw without a script from elsewhere."""
    writer.body.append(tex2mathml(node.astext()))
    raise SkipNode


def block_formula(writer, node):
    """Write a displayed formula as MathML."""
    writer.body.append(f"<p>{tex2mathml(node.astext(), as_block=True)}</p>")
    raise SkipNode


def setup(app):
    app.add_html_math_renderer("mathml", (inline_formula, None), (block_formula, None))
    app.connect("autodoc-skip-member", skip_inherited_from_others)
    # Before numpydoc, which has the priority 500.
    app.connect("autodoc-process-docstring", escape_formulas, priority=400)
