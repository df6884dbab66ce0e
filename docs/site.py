"""What `make docs` does to a page: docstrings become Markdown, and TeX becomes MathML.

Browsers draw MathML themselves, so that a page needs no script and no network for its formulas.
"""

import html
import re
from typing import Any

import griffe
from latex2mathml.converter import convert

_BLOCK = re.compile(r"^( *)\.\. math::(.*(?:\n\1 +\S.*)*)", re.MULTILINE)
_INLINE = re.compile(r":math:`([^`]+)`")
_EXAMPLE = re.compile(r"^( *)Example:$", re.MULTILINE)
_OPERATOR = re.compile(r"(\\(?:log|exp|det)|\\operatorname\{\w+\}|\\mathrm\{Tr\})(?=\s)")
_FORMULA = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)


def markdown(docstring: str) -> str:
    r"""A docstring's reStructuredText as Markdown: formulas, examples, literal blocks.

    Example:
        >>> markdown(":math:`x`")
        '\\(x\\)'
    """

    def block(match: re.Match[str]) -> str:
        return rf"{match[1]}\[ {' '.join(match[2].split())} \]"

    text = _INLINE.sub(lambda match: rf"\({' '.join(match[1].split())}\)", docstring)
    text = _EXAMPLE.sub(r"\1Examples:", _BLOCK.sub(block, text))
    return re.sub(r"::$", ":", text, flags=re.MULTILINE)


class Docstrings(griffe.Extension):
    """Rewrites docstrings before mkdocstrings reads them."""

    def on_instance(self, *, obj: griffe.Object, **unused: Any) -> None:
        """Called of every module, class, function and attribute."""
        if obj.docstring:
            obj.docstring.value = markdown(obj.docstring.value)


def on_page_content(content: str, **unused: Any) -> str:
    """Called by mkdocs with the HTML of each page."""

    def formula(match: re.Match[str]) -> str:
        display = "block" if match[1] == "div" else "inline"
        # The converter leaves no space between an operator's name and what it is of.
        tex = _OPERATOR.sub(r"\1\\,", html.unescape(match[2])).strip()
        mathml = convert(tex, display=display)
        return f'<{match[1]} class="formula">{mathml}</{match[1]}>'

    return _FORMULA.sub(formula, content)
