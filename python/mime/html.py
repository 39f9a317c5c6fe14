"""HTML with its scripts taken out, and every other byte as it was.

The standard library's parser does not serve: what it takes for a comment or for a script's end
differs from what browsers do, and from version to version of Python, and both are what a hostile
page plays with. Where readers of HTML disagree, what might be a script is taken for one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

__all__ = ["HTMLScriptFilter", "SGMLFilter"]

# In these nothing but their end tag is markup (HTML standard 13.2.5, RCDATA and RAWTEXT), to some
# readers and in some places.
_TEXT_ONLY = frozenset(
    {
        *("iframe", "noembed", "noframes", "noscript", "plaintext", "style", "textarea"),
        *("title", "xmp"),
    }
)
_SPACE = r"[ \t\n\f\r]"  # what HTML calls white space; Python's is more
_TAG = re.compile(r"<(/?)([A-Za-z\0][^ \t\n\f\r/>]*)")
_ATTRIBUTE = re.compile(
    r"""[ \t\n\f\r/]*([^ \t\n\f\r/>=][^ \t\n\f\r/>=]*)"""
    rf"""(?:{_SPACE}*={_SPACE}*("[^"]*"|'[^']*'|(?!["'])[^ \t\n\f\r>]+)?)?|[ \t\n\f\r/=]+"""
)
_CONDITIONAL = re.compile(r"<!--\s*\[if\b", re.IGNORECASE)
_COMMENT = re.compile(r"<!--(?:-?>|.*?--!?>)", re.DOTALL)
_OTHER = re.compile(r"<(?:[!?]|/(?![A-Za-z\0]))[^>]*>")
_XML = {"<?": "?>", "<![CDATA[": "]]>"}
_SCRIPT = "\0*".join("script")  # a NUL is nothing to some readers
_SCRIPT_START = re.compile(
    rf"<(?:[^\s/><]*:)?\0*{_SCRIPT}\0*(?=[\s/>]|\Z)|<!ENTITY(?=\s)", re.IGNORECASE
)
# In an entity of XML these spell markup, when it is referred to: "<", or "&" in front of such.
_SPELLED = re.compile(r"&#(?:0*(?:60|38)|x0*(?:3c|26));", re.IGNORECASE)
_DOCTYPE = re.compile(r"""<!doctype(?:"[^"]*"|'[^']*'|[^>"'\[])*>""", re.IGNORECASE)
# In other letters that are an i or an s without case ("\u0131", "\u017f") no tag is spelled.
_LETTERS = re.IGNORECASE | re.ASCII
_SCRIPT_END = re.compile(rf"</(?:[^\s/><]*:)?script(?={_SPACE}|[/>])", _LETTERS)
_ENDS = {name: re.compile(rf"</{name}(?={_SPACE}|[/>])", _LETTERS) for name in sorted(_TEXT_ONLY)}

Attributes = list[tuple[str, str]]


class _Token(NamedTuple):
    kind: str  # "data", "comment", "special", "start", "end"
    start: int
    end: int
    name: str = ""
    attributes: Attributes = []  # noqa: RUF012 (nobody changes it)


class _Writable(Protocol):
    def write(self, text: str, /) -> object: ...


class _Tokens:
    """Cuts HTML into tokens. Takes time in proportion to the text, whatever it is.

    Where two readers of HTML would go on differently after something (a tag that never ends, a NUL
    in it, a text-only element in which a tag begins that ends behind it), nothing counts from
    there on but scripts, wherever one begins.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.seen = dict.fromkeys(_XML, 0)  # how far readers of XML are with what begins so
        self.last_spelled = max((it.start() for it in _SPELLED.finditer(text)), default=-1)

    def __iter__(self) -> Iterator[_Token]:
        at = data = 0
        while (at := self.text.find("<", at)) >= 0:
            token = self.markup(at)
            if token is None:  # nothing begins here
                at += 1
                continue
            if token.end < 0:
                break
            yield _Token("data", data, at)
            data = at
            if token.kind == "comment" and _CONDITIONAL.match(self.text, at):
                if self.is_torn(at + 4, token.end):
                    break
                yield from self.comment(token)
                at = data = token.end
                continue
            end = self.end_in_xml(token)
            if end < 0 or self.is_torn(token.end, end):
                break
            yield token
            at = data = token.end
            if token.kind == "start" and _is_script(token.name):
                data = self.end_of(_SCRIPT_END, at)
                yield _Token("data", at, data)
                at = data
            elif token.kind == "start" and token.name in _TEXT_ONLY:
                end = self.end_of(_ENDS[token.name], at)
                if self.is_torn(at, end):
                    break
                yield from self.only_scripts(at, end)
                at = data = end
        yield from self.only_scripts(data, len(self.text))

    def end_of(self, what: re.Pattern[str], at: int) -> int:
        match = what.search(self.text, at)
        return match.start() if match else len(self.text)

    def is_torn(self, at: int, end: int) -> bool:
        """Whether markup begins before `end` and does not end there: for text that is markup to
        some readers only."""
        while (at := self.text.find("<", at, end)) >= 0:
            token = self.markup(at)
            if token is None:
                at += 1
                continue
            at = token.end
            if at >= 0 and token.kind == "start" and token.name in _TEXT_ONLY:
                at = self.end_of(_ENDS[token.name], at)
            if not 0 <= at <= end:
                return True
        return False

    def end_in_xml(self, token: _Token) -> int:
        """Where a token ends for readers of XML, and in SVG, if that is further on; -1 if they
        differ: in Shift_JIS, Big5 and GBK a "]" may be the second byte of another character."""
        for begins, ends in _XML.items() if token.kind == "special" else ():
            if not self.text.startswith(begins, token.start) or token.start < self.seen[begins]:
                continue
            end = self.text.find(ends, token.start)
            self.seen[begins] = end + len(ends) if end >= 0 else len(self.text)
            if ends[0] == "]" and not self.text[max(end - 1, 0) : max(end, 0)].isascii():
                return -1
            return max(token.end, end + len(ends))
        return token.end

    def comment(self, token: _Token) -> Iterator[_Token]:
        """A conditional comment, markup to some readers."""
        if self.next_script(token.start, token.end):
            yield from self.only_scripts(token.start, token.end)
        else:
            yield token

    def only_scripts(self, at: int, end: int) -> Iterator[_Token]:
        """Text in which no other markup counts."""
        while match := self.next_script(at, end):
            yield _Token("data", at, match.start())
            if match[0].startswith("<!"):  # without its beginning it is no entity, and no XML
                yield _Token("start", *match.span(), "script")
                at = match.end()
                yield _Token("end", at, at, "script")
                continue
            start = self.tag(match.start(), match.end(), "start", "script")
            if not 0 <= start.end <= end:
                start = start._replace(end=end)
            yield start
            at = min(self.end_of(_SCRIPT_END, start.end), end)
            yield _Token("data", start.end, at)
            stop = at  # without an end tag it ends where the text does
            if close := _SCRIPT_END.match(self.text, at, end):
                stop = self.tag(at, close.end(), "end", "script").end
                stop = stop if 0 <= stop <= end else end
            yield _Token("end", at, stop, "script")
            at = stop
        yield _Token("data", at, end)

    def next_script(self, at: int, end: int) -> re.Match[str] | None:
        """Where a script begins, or an entity in which one may be spelled."""
        for match in _SCRIPT_START.finditer(self.text, at, end):
            if not match[0].startswith("<!") or match.start() < self.last_spelled:
                return match
        return None

    def markup(self, at: int) -> _Token | None:
        """The token that begins at a `<`; its end is -1 if readers differ on it."""
        if tag := _TAG.match(self.text, at):
            name = tag[2].lower()
            token = self.tag(at, tag.end(), "end" if tag[1] else "start", name)
            if "<" in name or "\0" in self.text[at : max(token.end, tag.end())]:
                return token._replace(end=-1)
            return token
        for kind, begins, pattern in (
            ("comment", "<!--", _COMMENT),
            ("special", ("<!", "<?", "</"), _OTHER),
        ):
            if self.text.startswith(begins, at):
                match = pattern.match(self.text, at)
                if match and match[0][2:9].lower() == "doctype":
                    whole = _DOCTYPE.match(self.text, at)
                    if not whole or whole.end() != match.end():
                        match = None  # has more in it, to readers of XML
                return _Token(kind, at, match.end() if match else -1)
        return None

    def tag(self, start: int, at: int, kind: str, name: str) -> _Token:
        """A tag, whose attributes begin at `at`."""
        attributes: Attributes = []
        while match := _ATTRIBUTE.match(self.text, at):
            at = match.end()
            if match[1]:
                key = match[1].lower()
                # In SGML an attribute without a value is a value without its name.
                attributes.append((key, key if match[2] is None else _unquoted(match[2])))
        end = at + 1 if self.text.startswith(">", at) else -1
        return _Token(kind, start, end, name, attributes)


def _is_script(name: str) -> bool:
    return name.rpartition(":")[2] == "script"


def _unquoted(value: str) -> str:
    return value[1:-1] if value and value[0] in "\"'" else value


class SGMLFilter:
    """Passes HTML through unchanged; what derived classes handle is theirs to write.

    out: has a write method for text. feed() takes text in pieces of any size, close() handles it:
    nothing is written before. For a start tag `start_NAME(attributes)` or `do_NAME(attributes)` is
    called, for an end tag `end_NAME()`, where the class has them; else unknown_starttag and
    unknown_endtag.
    """

    def __init__(self, out: _Writable) -> None:
        self.out = out
        self.reset()

    def reset(self) -> None:
        """Forgets what was fed."""
        self._fed: list[str] = []
        self._text = ""

    def feed(self, data: str) -> None:
        """Takes a piece of HTML."""
        self._fed.append(data)

    write = feed

    def close(self) -> None:
        """Handles all that was fed."""
        text = "".join(self._fed)
        self._fed = []
        for token in _Tokens(text):
            if token.end > token.start or token.kind == "end":
                self._text = text[token.start : token.end]
                self._handle(token)

    def _handle(self, token: _Token) -> None:
        if token.kind == "data":
            self.handle_data(self._text)
        elif token.kind == "comment":
            self.handle_comment(self._text[4:-3])
        elif token.kind == "special":
            self.handle_special(self._text)
        else:
            self._handle_tag(token, "script" if _is_script(token.name) else token.name)

    def _handle_tag(self, token: _Token, name: str) -> None:
        if token.kind == "start":
            handler = getattr(self, f"start_{name}", None) or getattr(self, f"do_{name}", None)
            if handler:
                handler(token.attributes)
            else:
                self.unknown_starttag(name, token.attributes)
        elif handler := getattr(self, f"end_{name}", None):
            handler()
        else:
            self.unknown_endtag(name)

    def get_starttag_text(self) -> str:
        """The token that is handled, as it stands in the text."""
        return self._text

    def handle_data(self, data: str) -> None:
        """Text, with the references in it as they are."""
        self.out.write(data)

    def handle_comment(self, comment: str) -> None:
        """A comment, given without the marks around it."""
        self.out.write(self._text)

    def handle_special(self, data: str) -> None:
        """A declaration, a processing instruction, or what else stands in <! > and <? >."""
        self.out.write(data)

    def unknown_starttag(self, tag: str, attr: Attributes) -> None:
        """A start tag that no method is for."""
        self.out.write(self._text)

    def unknown_endtag(self, tag: str) -> None:
        """An end tag that no method is for."""
        self.out.write(self._text)


class HTMLScriptFilter(SGMLFilter):
    """Passes HTML through without its scripts: `msg` stands in the place of each (a space, if it
    is empty, lest what stood around a script becomes one).

    modified: whether there was one. Attributes that hold scripts (onload, srcdoc and the like)
    stay.
    """

    def __init__(self, out: _Writable) -> None:
        super().__init__(out)
        self.msg = "<!-- WARNING: embedded script removed -->"
        self.modified = False
        self.ignoring = False

    def close(self) -> None:
        """Handles all that was fed. A script that does not end ends here."""
        super().close()
        if self.ignoring:
            self.end_script()

    def start_script(self, unused: Any) -> None:
        """A script begins."""
        self.ignoring = self.modified = True

    def end_script(self) -> None:
        """A script ends, or there was none."""
        self.out.write((self.msg or " ") if self.ignoring else self._text)
        self.ignoring = False

    def handle_data(self, data: str) -> None:
        """Text, of the page or of a script."""
        if not self.ignoring:
            super().handle_data(data)
