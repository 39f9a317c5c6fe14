"""Milter.cache beside the older package: what is kept, and what is forgotten."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
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


def test_nothing_is_lost_while_another_loads(tmp_path: Path) -> None:
    """Loading writes the file anew; what is appended meanwhile must not go to the old one."""
    path = str(tmp_path / "log")
    cache = AddrCache(7, path)
    cache["first@b"] = None
    done = threading.Event()

    def load() -> None:
        while not done.wait(0.001):  # a lock is not fair: whoever asks again at once has it again
            AddrCache().load(path)

    loader = threading.Thread(target=load)
    loader.start()
    try:
        for number in range(300):
            cache[f"a{number}@b"] = None
    finally:
        done.set()
        loader.join()
    again = AddrCache()
    again.load(path)
    assert len(again) == 301


def test_bytes_that_are_no_utf8_stay(tmp_path: Path) -> None:
    path = tmp_path / "log"
    cache = AddrCache(7, str(path))
    cache["\udce9\xe9@b"] = None
    before = path.read_bytes()
    again = AddrCache()
    again.load(str(path))
    assert "\udce9\xe9@b" in again
    assert path.read_bytes() == before


def test_old_entries_are_forgotten() -> None:
    cache = AddrCache(1)
    cache["asked@b"] = 1
    cache.cache["asked@b"] = (time.time() - 2 * 86400, 1)
    assert "asked@b" not in cache
    assert len(cache) == 0
    for number in range(5000):
        cache[f"{number}@b"] = 1
        cache.cache[f"{number}@b"] = (time.time() - 2 * 86400, 1)
    assert len(cache) <= 1001
    with pytest.raises(KeyError, match=r"^'a@b'$"):
        cache["a@b"]
    assert None not in cache
