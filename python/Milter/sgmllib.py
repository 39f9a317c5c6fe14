"""A parser of SGML with the methods that Python 2's module of this name documents, for filters that
derive from it.

It calls a method for each piece of a text. It is not a judge of hostile HTML: that is
`mime.HTMLScriptFilter`.
"""

from __future__ import annotations

import re
from collections.abc import Callable

__all__ = ["SGMLParseError", "SGMLParser"]

Attributes = list[tuple[str, str]]

_NAME = r"[A-Za-z][-.A-Za-z0-9]*"
_MARK = re.compile("[&<]")
_REFERENCE = re.compile(rf"&(?:#([0-9]+)|({_NAME}));?")
_OPEN_REFERENCE = re.compile(rf"&(?:#[0-9]*|{_NAME})?\Z")
_IN_VALUE = re.compile(rf"&(?:#([0-9]+);?|({_NAME});)")
_TAG = re.compile(r"<([A-Za-z][-_.A-Za-z0-9]*)?")
_ATTRIBUTE = re.compile(
    r"""\s*([A-Za-z_][-:.A-Za-z_0-9]*)(\s*=\s*("[^"]*"|'[^']*'|[^\s<>]*))?|\s*[^\s<>]+|\s+"""
)
_TAG_END = re.compile("[<>]")
_COMMENT_END = re.compile(r"--\s*>")
_LETTER = re.compile("[A-Za-z]")
_PI_END = re.compile(">")
_SECTION = re.compile(r"\s*([A-Za-z]+)")
_SECTION_END = re.compile(r"\]\s*\]\s*>")
_CONDITION_END = re.compile(r"\]\s*>")
_DECLARATION = re.compile(
    r"""<!((?:"[^"]*"|'[^']*'|\[(?:"[^"]*"|'[^']*'|<!--.*?-->|(?!<!--)[^\]"'])*\]|[^>"'\[])*)>""",
    re.DOTALL,
)


class SGMLParseError(RuntimeError):
    """What `SGMLParser.error` raises."""


class SGMLParser:
    """Cuts a text into pieces and calls a method for each.

    For the tag x that is `start_x(attributes)` with `end_x()`, or `do_x(attributes)` for one that
    has no end, where a subclass has them, else unknown_starttag and unknown_endtag. attributes:
    pairs of a name in lower case and a value without quotes and references; the name again for one
    without a value. Names of tags are in lower case.
    """

    #: What entities stand for.
    entitydefs = {"lt": "<", "gt": ">", "amp": "&", "quot": '"', "apos": "'"}  # noqa: RUF012

    def __init__(self, verbose: int = 0) -> None:
        self.verbose = verbose
        self.reset()

    def reset(self) -> None:
        """Forget all that was fed."""
        self.rawdata = ""
        self.stack: list[str] = []
        self.lasttag = "???"
        self.nomoretags = 0
        self.literal = 0
        self._start_text: str | None = None

    def setnomoretags(self) -> None:
        """Take all that follows as text."""
        self.nomoretags = self.literal = 1

    def setliteral(self) -> None:
        """Take what follows as text, up to the next end tag."""
        self.literal = 1

    def feed(self, data: str) -> None:
        """Parse some text; what is not whole yet waits for more."""
        self.rawdata += data
        self.goahead(0)

    def close(self) -> None:
        """Parse what waits: no more follows."""
        self.goahead(1)

    def error(self, message: str) -> None:
        """Raise SGMLParseError, for subclasses: no text is an error."""
        raise SGMLParseError(message)

    def get_starttag_text(self) -> str | None:
        """Return the last start tag as it stands in the text."""
        return self._start_text

    # ------------------------------------------------------------------------------- the pieces

    def goahead(self, end: int) -> None:
        """Parse what there is; with end all of it, else what is whole."""
        text, at = self.rawdata, 0
        while at < len(text):
            mark = None if self.nomoretags else _MARK.search(text, at)
            piece = mark.start() if mark else len(text)
            if piece > at:
                self.handle_data(text[at:piece])
            at = piece
            if mark is None:
                break
            following = self._reference(at) if mark[0] == "&" else self._markup(at, end)
            if following == at:
                break
            if following < 0:  # it is text
                self.handle_data(mark[0])
                following = at + 1
            at = following
        if end and at < len(text):
            self.handle_data(text[at:])
            at = len(text)
        self.rawdata = text[at:]

    def _reference(self, at: int) -> int:
        """Handle the "&" at a place. As all of its kind: returns where the text goes on; the same
        place if it is not whole, -1 if nothing begins there."""
        found = _REFERENCE.match(self.rawdata, at)
        if self.literal:
            return -1
        if _OPEN_REFERENCE.match(self.rawdata, at):
            return at
        if not found:
            return -1
        number, name = found.groups()
        if number:
            self.handle_charref(number)
        else:
            self.handle_entityref(name)
        return found.end()

    def _markup(self, at: int, end: int) -> int:
        """Handle the "<" at a place."""
        following = self.rawdata[at + 1 : at + 2]
        if not following:
            return at
        if following == "/":
            return self._end_tag(at)
        if self.literal:
            return -1
        if following == "!":
            return self._declaration(at)
        if following == "?":
            return self._piece(at, at + 2, _PI_END, self.handle_pi)
        return self._start_tag(at, end)

    def _piece(
        self, at: int, start: int, ends: re.Pattern[str], handle: Callable[[str], object]
    ) -> int:
        """Handle what stands from start to an end."""
        found = ends.search(self.rawdata, start)
        if not found:
            return at
        handle(self.rawdata[start : found.start()])
        return found.end()

    def _declaration(self, at: int) -> int:
        """Handle what begins with "<!"."""
        text = self.rawdata
        if text.startswith("<!>", at):
            return at + 3
        if text.startswith("<!--", at):
            return self._piece(at, at + 4, _COMMENT_END, self.handle_comment)
        if text.startswith("<![", at):
            name = _SECTION.match(text, at + 3)
            if not name:
                return at if text[at + 3 :].isspace() or len(text) == at + 3 else -1
            condition = name[1].lower() in ("if", "else", "endif")
            ends = _CONDITION_END if condition else _SECTION_END
            return self._piece(at, at + 3, ends, self.unknown_decl)
        if len(text) == at + 2 or text[at + 2 :] == "-":
            return at
        if not _LETTER.match(text, at + 2):
            return -1
        found = _DECLARATION.match(text, at)
        if not found:
            return at
        known = found[1].lower().startswith("doctype")
        (self.handle_decl if known else self.unknown_decl)(found[1])
        return found.end()

    def _start_tag(self, at: int, end: int) -> int:
        """Handle a start tag. A quote that never closes counts as a character once no more follows,
        and until then may still close."""
        text = self.rawdata
        tag = _TAG.match(text, at)
        if tag is None or not (tag[1] or text[at + 1] == ">"):
            return -1
        attributes: Attributes = []
        stop = tag.end()
        while piece := _ATTRIBUTE.match(text, stop):
            stop = piece.end()
            if piece[1]:
                value = piece[3] if piece[2] else piece[1]
                if value[:1] in ("'", '"') and (len(value) < 2 or value[-1] != value[0]):
                    if not end:
                        return at
                elif value[:1] in ("'", '"'):
                    value = value[1:-1]
                attributes.append((piece[1].lower(), self._value(value)))
        if stop == len(text):
            return at
        stop += text[stop] == ">"
        if tag[1]:
            self.lasttag = tag[1].lower()
        self._start_text = text[at:stop]
        self.finish_starttag(self.lasttag, attributes)
        return stop

    def _value(self, text: str) -> str:
        """A value with its references replaced by what they stand for, if that is known."""

        def meant(found: re.Match[str]) -> str:
            number, name = found.groups()
            text = self.convert_charref(number) if number else self.convert_entityref(name)
            return found[0] if text is None else text

        return _IN_VALUE.sub(meant, text)

    def _end_tag(self, at: int) -> int:
        """Handle an end tag."""
        found = _TAG_END.search(self.rawdata, at + 1)
        if not found:
            return at
        self.literal = 0
        self.finish_endtag(self.rawdata[at + 2 : found.start()].strip().lower())
        return found.start() + (found[0] == ">")

    # --------------------------------------------------------------------------------- elements

    def finish_starttag(self, tag: str, attrs: Attributes) -> int:
        """Call what handles a start tag; returns 1 for start_x, 0 for do_x, -1 for neither."""
        for prefix, opens in (("start_", 1), ("do_", 0)):
            method = getattr(self, prefix + tag, None)
            if method is not None:
                if opens:
                    self.stack.append(tag)
                self.handle_starttag(tag, method, attrs)
                return opens
        self.unknown_starttag(tag, attrs)
        return -1

    def finish_endtag(self, tag: str) -> None:
        """Close an element, and those that are open in it; the innermost for an empty name."""
        if not tag and self.stack:
            tag = self.stack[-1]
        if tag not in self.stack:
            if getattr(self, f"end_{tag}", None) is None:
                self.unknown_endtag(tag)
            else:
                self.report_unbalanced(tag)
            return
        outer = len(self.stack) - 1 - self.stack[::-1].index(tag)
        while len(self.stack) > outer:
            name = self.stack[-1]
            method = getattr(self, f"end_{name}", None)
            if method is None:
                self.unknown_endtag(name)
            else:
                self.handle_endtag(name, method)
            if self.stack:
                self.stack.pop()

    # ------------------------------------------------------------------- methods to be overridden

    def handle_starttag(
        self, tag: str, method: Callable[[Attributes], object], attrs: Attributes
    ) -> None:
        """Called for a tag with a start_x or do_x; calls that."""
        method(attrs)

    def handle_endtag(self, tag: str, method: Callable[[], object]) -> None:
        """Called for the end of a tag with an end_x; calls that."""
        method()

    def report_unbalanced(self, tag: str) -> None:
        """Called for an end tag with an end_x, whose element is not open."""

    def handle_charref(self, name: str) -> None:
        """Called for `&#name;`; calls handle_data, or unknown_charref if it stands for nothing."""
        text = self.convert_charref(name)
        if text is None:
            self.unknown_charref(name)
        else:
            self.handle_data(text)

    def convert_charref(self, name: str) -> str | None:
        """Return what `&#name;` stands for, if it is from 0 to 127, or None."""
        try:
            number = int(name)
        except ValueError:
            return None
        return self.convert_codepoint(number) if 0 <= number <= 127 else None

    def convert_codepoint(self, codepoint: int) -> str:
        """Return a character by its number."""
        return chr(codepoint)

    def handle_entityref(self, name: str) -> None:
        """Called for `&name;`; calls handle_data, or unknown_entityref if it stands for nothing."""
        text = self.convert_entityref(name)
        if text is None:
            self.unknown_entityref(name)
        else:
            self.handle_data(text)

    def convert_entityref(self, name: str) -> str | None:
        """Return what entitydefs has for `&name;`, or None."""
        return self.entitydefs.get(name)

    def handle_data(self, data: str) -> None:
        """Called for text; in any number of pieces."""

    def handle_comment(self, data: str) -> None:
        """Called for `<!--data-->`."""

    def handle_decl(self, decl: str) -> None:
        """Called for `<!DOCTYPE ...>`, with what stands between "<!" and ">"."""

    def handle_pi(self, data: str) -> None:
        """Called for `<?data>`."""

    def unknown_starttag(self, tag: str, attrs: Attributes) -> None:
        """Called for a start tag with neither start_x nor do_x."""

    def unknown_endtag(self, tag: str) -> None:
        """Called for an end tag without end_x."""

    def unknown_charref(self, ref: str) -> None:
        """Called for a number that stands for nothing."""

    def unknown_entityref(self, ref: str) -> None:
        """Called for a name that stands for nothing."""

    def unknown_decl(self, data: str) -> None:
        """Called for other declarations and for marked sections, with what stands in them."""
