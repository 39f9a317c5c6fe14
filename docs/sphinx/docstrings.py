"""Docstrings as reStructuredText. Ours are plain text: paragraphs, code in `backticks`, which is a
link where there is such a name, indented blocks, which are code, and lists, whose items are lines
that go on indented. Nothing else in them is markup."""

import re

from sphinx.application import Sphinx

_CODE = re.compile(r"``.+?``|`[^`']+`|(?P<plain>[*|`\\]|(?<=\w)_(?!\w))", re.S)


def _escaped(found: re.Match[str]) -> str:
    if found["plain"]:
        return "\\" + found[0]
    if found[0] == "`!`" or "\\" in found[0]:  # not what a role makes of it
        return f"``{found[0].strip('`')}``"
    return found[0]


def markup(text: str) -> str:
    """A plain text as reStructuredText."""
    paragraphs = text.split("\n\n")
    for at, each in enumerate(paragraphs):
        if each.startswith("    "):
            after = at > 0 and paragraphs[at - 1].startswith(("    ", "::"))
            paragraphs[at] = each if after else f"::\n\n{each}"
        elif not each.startswith(">>>"):
            text = _CODE.sub(_escaped, each)
            if "\n    " in text:  # a list
                items = re.split(r"\n(?! )", text)
                text = "\n".join("- " + re.sub(r"\n +", "\n  ", item) for item in items)
            paragraphs[at] = text
    return "\n\n".join(paragraphs)


def _process(_app: Sphinx, _what: str, _name: str, _value: object, _options: object,
             lines: list[str]) -> None:  # fmt: skip
    lines[:] = markup("\n".join(lines).rstrip()).split("\n")
    lines.append("")


def _signature(_app: Sphinx, _what: str, _name: str, _value: object, _options: object,
               signature: str | None, returns: str | None) -> tuple[str | None, ...]:  # fmt: skip
    """Defaults that have no literal of their own are three dots."""
    return signature and re.sub("<factory>|Ellipsis", "...", signature), returns


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect("autodoc-process-signature", _signature)
    app.connect("autodoc-process-docstring", _process)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
