"""Milter.cache beside the older package: what is kept, and what is forgotten."""

from __future__ import annotations

import time
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from Milter.cache import AddrCache

from .oracle import agree

FILL = (
    "c.__setitem__('A@b.com', None), c.__setitem__('x@y.com', (550, 'no')), c.addperm('p@q.r'),"
    " c.addperm('wild.com')"
)


def test_as_the_oracle() -> None:
    asked = [
        f"(lambda c: ({FILL}, {ask})[4:])(AddrCache(7, '/dev/null'))"
        for address in ("a@B.com", "x@y.com", "no@no", "p@q.r", "u@wild.com", "u@s.wild.com")
        for ask in (f"{address!r} in c", f"c[{address!r}]", f"c.has_precise_key({address!r})")
    ]
    agree("cache", [*asked, f"(lambda c: ({FILL}, len(c)))(AddrCache(7, '/dev/null'))"], {})


def test_the_file(tmp_path: Path) -> None:
    path = tmp_path / "log"
    day_ago = time.strftime(AddrCache.time_format, time.localtime(time.time() - 86400))
    good = f"perm@x.com\nnew@x.com {day_ago}\nw.com\n"
    fill = f"old@x.com 2001Jan01 00:00:00 UTC\n{good}bad@x.com 2009bogus\n"
    keys = ["old@x.com", "perm@x.com", "NEW@x.com", "bad@x.com", "a@w.com"]
    write = f"__import__('pathlib').Path({str(path)!r}).write_text({fill!r})"
    read = f"__import__('pathlib').Path({str(path)!r}).read_text()"
    ask = f"(lambda c: ({write}, c.load({str(path)!r}), [k in c for k in {keys}], {read}))"
    agree("cache", [f"{ask}(AddrCache(7, '/dev/null'))"], {})
    assert path.read_text() == good


def test_appended_lines_are_loaded(tmp_path: Path) -> None:
    path = str(tmp_path / "log")
    one = AddrCache(7, path)
    one["a@b"] = None
    one["a@b"] = None
    one["c@d"] = "failed"
    one["evil\nx@y"] = None
    two = AddrCache()
    two.load(path)
    assert ("a@b" in two, "c@d" in two, "x@y" in two, len(two)) == (True, False, False, 1)


@given(st.text())
def test_any_text(text: str) -> None:
    cache = AddrCache()
    cache[text] = 1
    assert cache[text] == 1
