"""What the companions make of whatever a message, a client or a file may hold: no exception but the
documented ones, and ten times the text takes about ten times as long. Five seconds."""

from __future__ import annotations

import binascii
import configparser
import contextlib
import email
import io
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from Milter import dsn, dynip, pyip6, utils
from Milter.cache import AddrCache
from Milter.config import MilterConfigParser
from Milter.greylist import Greylist
from Milter.unsign import unsign


def notice(text: str) -> None:
    """A notice whose values come from a message."""
    v = dsn.Vars()
    v.sender, v.receiver, v.other = text, "me.org", text  # type: ignore[attr-defined]
    original = email.message_from_string(f"Subject: {text}\nReceived-SPF: {text}\n\n")
    template = (
        "Subject: %(subject)s\nX: %(spf_result)s %(other)s\nY: %(rcpt)s\n\n%(rcpt)s %(other)s"
    )
    message = dsn.create_msg(v, [text, text], original, template)
    assert message is not None
    message.as_bytes()
    message.as_string()


def cached(text: str) -> None:
    """An address that is asked for and kept."""
    cache = AddrCache()
    assert text not in cache
    cache[text] = 1
    assert cache[text] == 1


def loaded(text: str, path: Path) -> None:
    """A cache's file."""
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    AddrCache().load(str(path))


def configured(text: str, path: Path) -> None:
    """A configuration's file, and all that it holds."""
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    parser = MilterConfigParser()
    parser.read(path, encoding="utf-8")
    for section in (*parser.sections(), "none"):
        options = parser.options(section) if section != "none" else ["none"]
        for option in options:
            for method in (
                parser.get, parser.getlist, parser.getaddrset, parser.getaddrdict,
                parser.getdefault, parser.getintdefault,
            ):  # fmt: skip
                with contextlib.suppress(configparser.Error, ValueError, OSError):
                    method(section, option)


def grey(text: str) -> None:
    """A triple."""
    with contextlib.closing(Greylist(":memory:")) as list_:
        assert list_.check("1.2.3.4", text, text) == 0


def imported(text: str) -> None:
    """Triples from a file."""
    with contextlib.closing(Greylist(":memory:")) as list_:
        list_.import_csv(io.StringIO(text, newline=""))


def as_bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


Use = Callable[[str], object]
#: Function of text -> the exceptions that its documentation has.
USES: dict[str, tuple[Use, tuple[type[Exception], ...]]] = {
    "parse_addr": (utils.parse_addr, ()),
    "parseaddr": (utils.parseaddr, ()),
    "parse_header": (utils.parse_header, ()),
    "decode": (utils.decode, (binascii.Error,)),
    "decode of bytes": (lambda text: utils.decode(as_bytes(text), "\n"), (binascii.Error,)),
    "iniplist": (lambda text: utils.iniplist(text, ["1.2.3.4", "::1/8"]), (ValueError,)),
    "ip4re": (utils.ip4re.match, ()),
    "ip6re": (utils.ip6re.match, ()),
    "inet_pton": (utils.inet_pton, (OSError, ValueError)),
    "inet_ntop": (lambda text: utils.inet_ntop(as_bytes(text)), (ValueError,)),
    "addr2bin": (utils.addr2bin, (OSError, ValueError)),
    "bin2long6": (lambda text: utils.bin2long6(as_bytes(text)), (ValueError,)),
    "pyip6.inet_pton": (pyip6.inet_pton, (ValueError,)),
    "pyip6.inet_ntop": (lambda text: pyip6.inet_ntop(as_bytes(text)), (ValueError,)),
    "unsign": (unsign, ()),
    "is_dynip": (lambda text: dynip.is_dynip(text, "203.99.113.88"), ()),
    "is_dynip, address": (lambda text: dynip.is_dynip("mail.ex.com", text), ()),
    "create_msg": (notice, ()),
    "send_dsn": (lambda text: dsn.send_dsn(text, "me.org", None, 0, Nowhere()), (ValueError,)),
    "AddrCache": (cached, ()),
    "Greylist": (grey, ()),
    "import_csv": (imported, (ValueError,)),
}
FILES: dict[str, Callable[[str, Path], None]] = {
    "AddrCache.load": loaded,
    "MilterConfigParser": configured,
}


class Nowhere:
    """Servers that cannot be reached."""

    def dns(self, name: str, qtype: str) -> Any:
        return [(10, "no-such.invalid")]


PIECES = [
    "=?a?q?", "=?utf-8?q?=C3?= ", "=?utf-8?b?YQ==?= ", "?=", "(", "<", '"', "@", ":", "<@", "a,",
    "\\(", " ", "\t", "\n", "\r\n", "\na: b", "a@b", "1.", "88-", "-", "ppp", "h", "h1n", "hnco",
    "0", "::", "1:", "=", "+", "SRS0=", "SRS1=a==", "prvs=", "%", "%(x)s", "[a]\n", "b=c\n", ",",
    "a, ", "file:", "é", "\udce9", "\0", "\u2028", "x", ";", "'", "xdsl-", "pcp1", "S0",
]  # fmt: skip
TEXTS = st.one_of(
    st.text(),
    st.lists(st.sampled_from(PIECES) | st.text(max_size=3)).map("".join),
    st.binary().map(lambda data: data.decode("utf-8", "surrogateescape")),
)


@pytest.mark.parametrize("name", USES)
@settings(max_examples=50)
@given(TEXTS)
def test_any_text(name: str, text: str) -> None:
    use, documented = USES[name]
    with contextlib.suppress(*documented):
        use(text)


@pytest.mark.parametrize("name", FILES)
@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(TEXTS)
def test_any_file(tmp_path: Path, name: str, text: str) -> None:
    with contextlib.suppress(configparser.Error, UnicodeDecodeError):
        FILES[name](text, tmp_path / "file")


SMALL = 1000
TIMES = 10


def cost(use: Use, text: str) -> float:
    """The least CPU time of a few tries."""
    times = []
    for _ in range(2):
        start = time.process_time()
        with contextlib.suppress(Exception):
            use(text)
        times.append(time.process_time() - start)
    return min(times)


def reference(text: str) -> None:
    """Work that goes with the length: what is less is not looked at."""
    for _ in range(4):
        sum(map(ord, text))


@pytest.mark.parametrize("name", [*USES, *FILES])
def test_growth(tmp_path: Path, name: str) -> None:
    """Twelve times is what is meant, but clocks are coarse. Quadratic would be a hundred times."""
    use = USES[name][0] if name in USES else lambda text: FILES[name](text, tmp_path / "file")
    for piece in PIECES:
        small = piece * (SMALL // len(piece))
        little = max(cost(use, small), cost(reference, small))
        assert cost(use, small * TIMES) < 40 * little, (name, piece)
