"""The site of these pages: `make docs-site` builds it with warnings as errors and checks its links."""

from __future__ import annotations

import os
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform

import forethought

project = "Forethought"
author = "The Forethought developers"
html_show_copyright = False
version = release = forethought.__version__
language = "en"
default_role = "code"  # docstrings are written as Markdown is

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme = "furo"  # its fonts are the reader's own: nothing is fetched when a page is read
html_title = f"Forethought {release}"
html_copy_source = html_show_sourcelink = False

myst_heading_anchors = 4  # links such as engines.md#native-fields, as code hosts make them

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
napoleon_use_rtype = False


class FileLinks(SphinxTransform):
    """A link to Markdown outside docs/ gives the file: a code host shows it, the site has no page of it."""

    default_priority = 400

    def apply(self, **_: Any) -> None:
        """Replaces each such link of one page."""
        for link in list(self.document.findall(addnodes.pending_xref)):
            target = link["reftarget"]
            if link.get("refdomain") == "doc" and target not in self.env.found_docs:
                path = os.path.relpath(f"{target}.md", self.env.srcdir)
                file = addnodes.download_reference("", "", reftarget=f"/{path}")
                file += nodes.inline("", "", *link.children)
                link.replace_self(file)


def outside_the_menu(app: Sphinx, docname: str, source: list[str]) -> None:
    """Tables of results/ are reached from the page on results alone."""
    if docname.startswith("results/"):
        source[0] = f"---\norphan: true\n---\n{source[0]}"


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.add_transform(FileLinks)
    app.connect("source-read", outside_the_menu)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
