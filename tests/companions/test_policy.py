"""Milter.policy: what is looked up, beside the older package, and the formats of access maps, as
makemap, postmap and dbm make them. About three seconds."""

from __future__ import annotations

import dbm.dumb
import fcntl
import json
import os
import shutil
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import lmdb
import pytest
from api.conftest import ORACLE_PYTHON, need
from hypothesis import given
from hypothesis import strategies as st
from Milter.policy import MapError, MTAPolicy

PACKAGE = Path(__file__).parents[2] / "python" / "Milter"
MAKEMAP = Path(__file__).parents[2] / "build/sendmail/usr/libexec/sendmail/makemap"
POSTMAP = shutil.which("postmap", path=f"{os.environ.get('PATH', '')}:/usr/sbin")

ACCESS = """\
# a comment
SPF-Fail:user@Example.com\tOK
SPF-Fail:example.com\tREJECT
SPF-Fail:\tERROR:"550 5.7.1 none
  of yours"
  # no part of that
SPF-Pass:.example.com   QUARANTINE:below
SPF-Pass:com\tno parent without a dot
SPF-Neutral!old.example\tCBV
HELO\tbare
HELO\tsecond
"""


@pytest.fixture
def text(tmp_path: Path) -> str:
    path = tmp_path / "access"
    path.write_text(ACCESS)
    return str(path)


def policy(path: str, sender: str | bytes, tag: str) -> str | None:
    with MTAPolicy(sender, access_file=path) as policies:
        return policies.getPolicy(tag)


LOOKUPS = [
    ("user@example.com", "SPF-Fail", "OK"),
    ("<USER@Example.Com>", "spf-fail", "OK"),
    (b"user@example.com.", "SPF-Fail:", "REJECT"),
    ("other@EXAMPLE.com", "SPF-Fail", "REJECT"),
    ("example.com", "SPF-Fail", "REJECT"),
    ("u@sub.example.com", "SPF-Fail", 'ERROR:"550 5.7.1 none  of yours"'),
    ("", "SPF-Fail", 'ERROR:"550 5.7.1 none  of yours"'),
    ("u@sub.example.com", "SPF-Pass", "QUARANTINE:below"),
    ("u@a.b.sub.example.com", "SPF-Pass", "QUARANTINE:below"),
    ("u@example.com", "SPF-Pass", None),
    ("u@badexample.com", "SPF-Pass", None),
    ("u@old.example", "SPF-Neutral", "CBV"),
    ("u@x.test", "SPF-Neutral", None),
    ("u@x.test", "HELO", "bare"),
    ("u@x.test", "", None),
]


@pytest.mark.parametrize(("sender", "tag", "expected"), LOOKUPS)
def test_lookups(text: str, sender: str | bytes, tag: str, expected: str | None) -> None:
    assert policy(text, sender, tag) == expected


ORACLE = """
import json, sys, types
sys.dont_write_bytecode = True
sys.modules["bsddb3"] = types.SimpleNamespace(db=None)
import Milter.policy
class Map(dict):
    def close(self): pass
entries, asked = json.load(sys.stdin)
entries = Map((key.encode(), value.encode()) for key, value in entries.items())
Milter.policy.dbmopen = lambda *_: entries
conf = types.SimpleNamespace(access_file="x", access_file_nulls=False)
def answer(sender, tag):
    with Milter.policy.MTAPolicy(sender, conf) as policies:
        return policies.getPolicy(tag), policies.sender, policies.domain
json.dump([answer(*each) for each in asked], sys.stdout)
"""


def test_as_the_oracle(tmp_path: Path) -> None:
    need("oracle")
    entries = {
        "a!u@x.test": "1",
        "a!x.test": "2",
        "a!": "3",
        "b!": "4",
        "b": "5",
        "c": "6",
        "d!y.test": "7",
        "d!caf\xe9.test": "8",
    }
    path = tmp_path / "access"
    path.write_text("".join(f"{key} {value}\n" for key, value in entries.items()))
    senders = [
        "u@x.test",
        "v@X.TEST",
        "x.test",
        "",
        "@",
        "a@b@x.test",
        "u@y.test",
        "u@caf\xe9.test",
    ]
    asked = [(sender, tag) for sender in senders for tag in "abcde"]
    done = subprocess.run(
        [ORACLE_PYTHON, "-c", ORACLE],
        input=json.dumps([entries, asked]),
        capture_output=True,
        text=True,
        check=True,
        cwd="/",
    )
    ours = []
    for sender, tag in asked:
        policies = MTAPolicy(sender, SimpleNamespace(access_file=str(path)))
        ours.append([policies.getPolicy(tag), policies.sender, policies.domain])
    assert ours == json.loads(done.stdout)


def test_without_a_map() -> None:
    for conf in (None, SimpleNamespace(access_file=None), SimpleNamespace()):
        with MTAPolicy("u@x.test", conf=conf) as policies:
            assert policies.getPolicy("HELO") is None


def test_which_map(text: str, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_text("HELO other\n")
    conf = SimpleNamespace(access_file=text)
    assert MTAPolicy("u", conf).getPolicy("HELO") == "bare"
    policies = MTAPolicy("u", conf, access_file=str(other))
    policies.close()
    assert policies.getPolicy("HELO") == "other"


# --- formats ---


def entries_of(path: str) -> list[tuple[bytes, bytes]]:
    """As makemap makes them, in lower case, and some as postmap does, with NULs."""
    lines = Path(path).read_bytes().replace(b'"550 5.7.1 none\n', b'"550 5.7.1 none').splitlines()
    pairs = [line.split(None, 1) for line in lines if line.strip() and b"#" not in line]
    first = {key.lower(): value for key, value in reversed([each for each in pairs if each[1:]])}
    nuls = (b"\0" * (at % 2) for at in range(len(first)))
    return [(key + nul, value + nul) for nul, (key, value) in zip(nuls, first.items(), strict=True)]


def make_lmdb(text: str, path: str) -> str:
    with lmdb.open(path + ".lmdb", subdir=False) as opened, opened.begin(write=True) as writer:
        for key, value in entries_of(text):
            writer.put(key, value)
    return path + ".lmdb"


def make_dumb(text: str, path: str) -> str:
    with dbm.dumb.open(path, "n") as opened:
        for key, value in entries_of(text):
            opened[key] = value
    return path


@pytest.mark.parametrize("make", [make_lmdb, make_dumb])
def test_formats(text: str, tmp_path: Path, make: Callable[[str, str], str]) -> None:
    path = make(text, str(tmp_path / "map"))
    for sender, tag, expected in LOOKUPS:
        assert (sender, tag, policy(path, sender, tag)) == (sender, tag, expected)


# The distribution's interpreter has what ours may lack. The package's own __init__ is left out: the
# engine is not built for it.
ELSEWHERE = """
import json, sys, types
sys.dont_write_bytecode = True
package = sys.modules["Milter"] = types.ModuleType("Milter")
package.__path__ = [sys.argv[1]]
from Milter.policy import MTAPolicy
asked, path, make = json.load(sys.stdin)
if make:
    import dbm.gnu
    with dbm.gnu.open(path, "n") as made:
        for key, value in make:
            made[key] = value
answers = [MTAPolicy(sender, access_file=path).getPolicy(tag) for sender, tag in asked]
json.dump(answers, sys.stdout)
"""


def elsewhere(path: str, make: list[tuple[str, str]] | None = None) -> None:
    """What another interpreter finds in a map; with `make`, one of GNU dbm that it makes."""
    asked = [
        (sender.decode() if isinstance(sender, bytes) else sender, tag)
        for sender, tag, _ in LOOKUPS
    ]
    done = subprocess.run(
        [ORACLE_PYTHON, "-c", ELSEWHERE, str(PACKAGE)],
        input=json.dumps([asked, path, make]),
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
    )
    assert not done.stderr
    assert json.loads(done.stdout) == [expected for _, _, expected in LOOKUPS]


def without_module(module: str) -> bool:
    check = [ORACLE_PYTHON, "-c", f"import {module}"]
    return subprocess.run(check, stderr=subprocess.DEVNULL, check=False).returncode != 0


@pytest.mark.skipif(without_module("dbm.gnu"), reason="no python3-gdbm")
def test_gnu_dbm(text: str, tmp_path: Path) -> None:
    made = [(key.decode(), value.decode()) for key, value in entries_of(text)]
    elsewhere(str(tmp_path / "gnu"), made)


@pytest.mark.skipif(not MAKEMAP.exists(), reason="no sendmail-bin in build/sendmail")
def test_makemap(tmp_path: Path) -> None:
    (tmp_path / "cf").touch()
    path = str(tmp_path / "made.db")
    joined = (
        ACCESS.replace("none\n", "none").replace("  # no", "# no").replace("HELO\tsecond\n", "")
    )
    command = [str(MAKEMAP), "-C", str(tmp_path / "cf"), "hash", path]
    subprocess.run(command, input=joined, text=True, check=True)
    elsewhere(path)


@pytest.mark.skipif(not POSTMAP, reason="no postfix")
def test_postmap(text: str, tmp_path: Path) -> None:
    settings = tmp_path / "main.cf"
    settings.write_text("myhostname = host.test\nmynetworks = 127.0.0.0/8\n")
    for path in (text, settings):  # it waits after changes of the last second
        os.utime(path, (1, 1))
    subprocess.run([str(POSTMAP), "-c", str(tmp_path), f"hash:{text}"], check=True)
    elsewhere(text + ".db")


def no_berkeley(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("dbm.ndbm", "dbm.gnu", "dbm.sqlite3", "lmdb"):
        monkeypatch.setitem(sys.modules, module, None)


@pytest.mark.parametrize(
    ("head", "text"),
    [
        (bytes(12) + b"\x61\x15\x06\x00", "a Berkeley DB hash map.*: name the text"),
        (bytes(12) + b"\x00\x06\x15\x61", "a Berkeley DB hash map.*: name the text"),
        (bytes(12) + b"\x62\x31\x05\x00", "a Berkeley DB btree map.*: name the text"),
        (bytes(16) + b"\xde\xc0\xef\xbe", r"an LMDB map.*: pip install 'milterkit\[lmdb\]'"),
        (b"\xcf\x9a\x57\x13", "a GNU dbm map.*: install"),
        (b"SQLite format 3\0", "an SQLite map.*: use Python 3.13"),
    ],
)
def test_formats_that_cannot_be_read_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, head: bytes, text: str
) -> None:
    path = tmp_path / "access.db"
    path.write_bytes(head + bytes(8192))
    no_berkeley(monkeypatch)
    with pytest.raises(MapError, match=rf"{path} is {text}") as caught:
        MTAPolicy("u@x.test", access_file=str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (bytes(16) + b"\xde\xc0\xef\xbe" + bytes(8192), "an LMDB map: .*MDB_"),
        (b"HELO OK\0\n", "a text map: it has NULs: name the text that it was made from"),
    ],
)
def test_broken_maps(tmp_path: Path, content: bytes, text: str) -> None:
    path = tmp_path / "access"
    path.write_bytes(content)
    with pytest.raises(MapError, match=f"{path} cannot be read as {text}"):
        MTAPolicy("u@x.test", access_file=str(path))


def test_files_that_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="none"):
        MTAPolicy("u@x.test", access_file=str(tmp_path / "none"))
    with pytest.raises(IsADirectoryError):
        MTAPolicy("u@x.test", access_file=str(tmp_path))


def test_lines_of_texts(tmp_path: Path) -> None:
    path = tmp_path / "access"
    path.write_bytes(b"  HELO first\r\n\r\na:  b \t c  \n# x\n\td\nb: \xe9\xc3\xa9\nend:")
    answers = {tag: policy(str(path), "u", tag) for tag in ("HELO", "a", "b", "end")}
    assert answers == {"HELO": "first", "a": "b \t c  \td", "b": "\udce9\xe9", "end": None}


# --- files that change ---


def test_changes_count(text: str) -> None:
    policies = MTAPolicy("u", access_file=text)
    for value in ("one", "two", "six"):
        Path(text).write_text(f"HELO {value}\n")
        assert policies.getPolicy("HELO") == value
    Path(text + ".new").write_text("HELO new\n")
    Path(text + ".new").replace(text)
    assert policies.getPolicy("HELO") == "new"


def test_an_unchanged_map_is_not_read_again(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    policies = MTAPolicy("u", access_file=text)
    monkeypatch.setattr("Milter.policy.read", None)
    assert MTAPolicy("u", access_file=text).getPolicy("HELO") == "bare"
    assert policies.getPolicy("HELO") == "bare"


def test_a_map_that_breaks_stays(text: str, caplog: pytest.LogCaptureFixture) -> None:
    policies = MTAPolicy("u", access_file=text)
    Path(text).write_bytes(b"HELO \0")
    assert policies.getPolicy("HELO") == "bare"
    assert f"{text} cannot be read" in caplog.text
    Path(text).unlink()
    assert MTAPolicy("u", access_file=text).getPolicy("HELO") == "bare"
    Path(text).write_text("HELO again\n")
    assert policies.getPolicy("HELO") == "again"


def test_waits_for_who_writes(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """makemap and postmap lock a map and write it anew in its place."""
    waits = threading.Event()
    flock = fcntl.flock

    def noted(file: int, operation: int) -> None:
        waits.set()
        flock(file, operation)

    found: list[str | None] = []
    reader = threading.Thread(target=lambda: found.append(policy(text, "u", "HELO")))
    with open(text, "r+b") as file:
        flock(file, fcntl.LOCK_EX)
        file.truncate()
        monkeypatch.setattr(fcntl, "flock", noted)
        reader.start()
        assert waits.wait(30)
        file.write(b"HELO whole\n")
        file.flush()
        flock(file, fcntl.LOCK_UN)
        reader.join()
    assert found == ["whole"]


@pytest.mark.parametrize("make", [lambda text, _: text, make_lmdb])
def test_many_threads(text: str, tmp_path: Path, make: Callable[[str, str], str]) -> None:
    path = make(text, str(tmp_path / "map"))
    copy = Path(f"{path}.copy")
    found: list[str | None] = []
    stop = threading.Event()

    def look() -> None:
        while not stop.is_set():
            found.append(policy(path, "user@example.com", "SPF-Fail"))

    readers = [threading.Thread(target=look) for _ in range(8)]
    for reader in readers:
        reader.start()
    for _ in range(50):
        shutil.copy(path, copy)
        copy.replace(path)
    stop.set()
    for reader in readers:
        reader.join()
    assert len(found) >= 8
    assert set(found) == {"OK"}


# --- hostile input ---


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("policy") / "access"
    path.write_text(ACCESS)
    return str(path)


@given(
    sender=st.text(st.characters()) | st.binary() | st.text("u@.e!:<>\0\udcff\ud800"),
    tag=st.text(st.characters()) | st.sampled_from(["SPF-Fail", "HELO", "none"]),
)
def test_any_text(kept: str, sender: str | bytes, tag: str) -> None:
    found = policy(kept, sender, tag)
    assert found is None or isinstance(found, str)
    assert (found is not None) == (tag.rstrip("!:").lower() in ("spf-fail", "helo"))


def calls(use: Callable[[], object]) -> int:
    """How many functions are called, those in C too."""
    count = 0

    def note(_frame: object, event: str, _argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(note)
    try:
        use()
    finally:
        sys.setprofile(None)
    return count


def test_growth_with_the_sender(kept: str) -> None:
    def look(dots: int) -> Callable[[], object]:
        return lambda: policy(kept, "u@" + "x." * dots + "example.com", "SPF-Pass")

    look(1)()
    assert look(1_000_000)() == "QUARANTINE:below"
    assert calls(look(1_000_000)) <= calls(look(1000))


def test_growth_with_the_map(tmp_path: Path) -> None:
    def look(lines: int) -> Callable[[], object]:
        path = tmp_path / str(lines)
        path.write_text("".join(f"tag:{at}.example\n  REJECT\n" for at in range(lines)))
        return lambda: policy(str(path), "u@1.example", "tag")

    look(1)()
    few, many = look(2000), look(20000)
    tracemalloc.start()
    assert many() == "REJECT"
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak <= 40 * (tmp_path / "20000").stat().st_size
    (tmp_path / "20000").touch()
    assert calls(many) <= 12 * calls(few)
