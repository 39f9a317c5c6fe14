"""Milter.sgmllib beside the older package's: what it calls for texts, whole and in pieces."""

from __future__ import annotations

import json
import subprocess
import sys
from random import Random
from typing import Any

import pytest
from api.conftest import ORACLE_PYTHON, need
from Milter.sgmllib import SGMLParseError, SGMLParser

from .parsed import told

TEXTS = [
    "", "a<b>c", "a&amp;b", "a&foo;b", "a&foo b", "a&#65;b", "a&#65b", "a&#300;b", "a&#xe9;", "a&",
    "a& b", "a<", "a< b", "a<b", "a<b c", "<b c=d e=\"f\" g='h' i>", "<br />", "</b>x", "</", "</b",
    '<b c=&lt;x d="&foo;&#65;&#65">', "</ b>", "</b c>", "</>", "<>x", "<!-- a -->b", "<!-- a --",
    "<!---->x", "<!--a--!>x", "<!-->x", "<!doctype html>x", '<!DOCTYPE a [<!ENTITY b "c">]>x',
    "<![CDATA[x]]>y", "<![if x]>y", "<!x", "<!>x", "<?php x?>y", "<?x", "<B C=D>", "<b<c>d",
    '<b "x">y', '<b c=d"e>f', "<a_b>", "<1>", "<b c=>d", "<b c = d>e", "<b c=''>e",
    "<b\nc>e", "&lt", "&lt;", "&LT;", "&a.b;", "&#;", "<!-- -- -->x", "<!ELEMENT b>y", "<!FOO b>y",
    '<!doctype "a>b" c>d', '<b c="&amp;amp;">', "<b c=a&b>", "<b;c>d", "<b c/d>e",
    '<b c="d"e="f">', "<a href=x?y&z=1>", "<s>a<u>b</s>c</u>", "</s>", "</n>", "<n>x</n>",
    "<x><s></x></s>", "<d>a</d>", "<l>a<b>c&amp;d</b>e</l>f<b>", "<l>a<!-- x --></l>",
    "<m>a<b></m>",
    "<s>a<>b</>c", "<s>a<d><>b", "&#127;&#128;&#255;", "<!-- a --\n>b", "</b<c>", "<!a>", "<l>a</b",
    "<!doctype a [ <!-- ] > --> ]>b", '<!x "a', "<l></l >d", "<l>&lt;<", "<s a=1 a=2>", "<x a==b>",
    "<x  a=\"1\"b c = '2' d= 3>", "<!-", "<!--", "<![", "<![CDATA[", "<![if", '<!doctype a "',
    '<x a="b""c">', "<x a.b=c d-e=f _g=h 1=2>", "<é>", "&é;", "<x é=a>", "</é>",
]  # fmt: skip
#: What is not a mistake, or not the end of a tag, in ours.
DIFFERENCES: dict[str, list[Any]] = {
    '<b c="d>e">f': [["start", "b", [["c", "d>e"]], '<b c="d>e">'], ["data", "f"], ["closed"]],
    '<b c="d>e': [["closed"], ["start", "b", [["c", '"d']], '<b c="d>'], ["data", "e"]],
    "<a:b c:d=e>": [["start", "a", [["c:d", "e"]], "<a:b c:d=e>"], ["closed"]],
    "<b, c>": [["start", "b", [["c", "c"]], "<b, c>"], ["closed"]],
    "<br/>": [["start", "br", [], "<br/>"], ["closed"]],
    "<b/c/d": [["closed"], ["data", "<b/c/d"]],
    "<x a=é>": [["start", "x", [["a", "é"]], "<x a=é>"], ["closed"]],
    "<! x>y": [["data", "<! x>y"], ["closed"]],
    "<!-a>": [["data", "<!-a>"], ["closed"]],
    "<![foo[x]]>y": [["unknown_decl", "foo[x"], ["data", "y"], ["closed"]],
    "<!doctype [<b>": [["closed"], ["data", "<!doctype [<b>"]],
}
PARTS = [
    "<", ">", "</", "a", "b ", "=", " ", "&", "&lt;", "&#65;", "&#200;", "&foo;", ";", "<s>",
    "</s>", "<u>", "</u>", "<n>", "</n>", "<d>", "<l>", "</l>", "<x a=b>", '<b c="d">', "\n",
    "<![CDATA[c]]>",
    "<!doctype e>", "<>", "</>", "1", ".", "<!-- f -->", "<!--", "<?g>", "<m>",
]  # fmt: skip


def some(count: int) -> list[str]:
    chance = Random(11)
    return ["".join(chance.choices(PARTS, k=chance.randint(1, 9))) for _ in range(count)]


def as_json(value: Any) -> Any:
    return json.loads(json.dumps(value))


def test_as_the_oracle() -> None:
    need("oracle")
    texts = [*TEXTS, *some(3000), *DIFFERENCES]
    run = subprocess.run(
        [ORACLE_PYTHON, "-B", sys.modules[told.__module__].__file__ or ""],
        input=json.dumps([[text] for text in texts]),
        capture_output=True, text=True, check=True, cwd="/",
    )  # fmt: skip
    theirs = json.loads(run.stdout)
    assert len(theirs) == len(texts)
    for text, their in zip(texts, theirs, strict=True):
        our = as_json(told([text]))
        if text in DIFFERENCES:
            assert (text, our[0]) == (text, DIFFERENCES[text])
            assert their != our, f"{text}: no difference any more"
        else:
            assert (text, our) == (text, their)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_in_pieces(size: int) -> None:
    """The same, wherever a text is cut, but that more waits for the end."""

    def calls(pieces: list[str]) -> Any:
        made, stack = told(pieces)
        joined: list[Any] = []
        for call in made:
            if call[0] == "data" and joined and joined[-1][0] == "data":
                joined[-1] = ["data", joined[-1][1] + call[1]]
            elif call[0] != "closed":
                joined.append(call)
        return joined, stack

    for text in [*TEXTS, *DIFFERENCES, *some(1000)]:
        cut = [text[at : at + size] for at in range(0, len(text), size)]
        assert (text, calls(cut)) == (text, calls([text]))


def test_what_subclasses_change() -> None:
    class Latin(SGMLParser):
        entitydefs = {**SGMLParser.entitydefs, "eacute": "é"}  # noqa: RUF012
        text = ""

        def convert_charref(self, name: str) -> str | None:
            return self.convert_codepoint(int(name))

        def handle_data(self, data: str) -> None:
            self.text += data

        def handle_starttag(self, tag: str, method: Any, attrs: Any) -> None:
            self.text += f"[{tag} {attrs}]"

        def start_a(self, attrs: Any) -> None:
            raise AssertionError

    latin = Latin()
    latin.feed('&eacute;&#233;<a b="&eacute;&#233;">')
    latin.close()
    assert latin.text == "éé[a [('b', 'éé')]]"
    latin.reset()
    assert (latin.rawdata, latin.stack, latin.get_starttag_text()) == ("", [], None)
    with pytest.raises(SGMLParseError, match="why"):
        latin.error("why")


def test_hostile_texts_take_few_steps() -> None:
    """Steps are counted, as calls that Python makes."""

    def steps(text: str) -> int:
        count = 0

        def profile(*_: object) -> None:
            nonlocal count
            count += 1

        parser = SGMLParser()
        sys.setprofile(profile)
        try:
            parser.feed(text)
            parser.close()
        finally:
            sys.setprofile(None)
        return count

    for part in (
        "<",
        "<!",
        "<!--",
        "<a ",
        '<a b="',
        "<a b='>",
        "&",
        "&#",
        "&a",
        "</",
        "<![",
        "<s>",
    ):
        assert steps(part * 3000) < 12 * steps(part * 300) + 2000, part
