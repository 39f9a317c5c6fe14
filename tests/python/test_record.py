"""`Milter.testing.recording`, `.masking` and `.replaying`, and the commands on them."""

import contextlib
import itertools
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import Milter
import pytest
from hypothesis import given
from hypothesis import strategies as st
from Milter import _wire
from Milter.cli import main
from Milter.testing import MTA, spec
from Milter.testing import recording as recording_module
from Milter.testing.masking import mask
from Milter.testing.recording import Packets, Recorder
from Milter.testing.replaying import replay
from Milter.testing.transcript import Answered, Sent, parse, render

SEND = (b"Subject: hello\n\nthe body\n", "a@b", ["c@d", "e@f"])


class Filter(Milter.Base):
    """One that has something to say."""

    def envrcpt(self, rcpt, *_params):
        return Milter.REJECT if rcpt.startswith("<e") else Milter.CONTINUE

    @Milter.noreply
    def header(self, _name, value):
        self.subject = value
        return Milter.CONTINUE

    def eom(self):
        self.addheader("X-Subject", self.subject)
        self.delrcpt("<c@d>")
        return Milter.CONTINUE


@contextlib.contextmanager
def serving(klass, path):
    with Milter.Server(klass, f"unix:{path}") as server:
        yield server.address


@pytest.fixture
def recorded(tmp_path):
    """Records what happens on connections to a filter class; returns the transcripts."""

    numbers = itertools.count()

    def run(happens, klass=Filter, **options):
        folder = tmp_path / f"recorded{next(numbers)}"
        with (
            serving(klass, tmp_path / "filter") as to,
            Recorder(f"unix:{tmp_path}/mta", to, folder, **options) as recorder,
        ):
            happens(recorder.address)
        assert not list(folder.glob("*.part"))
        return [parse(path.read_text())[0] for path in sorted(folder.glob("*.transcript"))]

    return run


def send(address):
    with MTA(address) as mta:
        mta.send(*SEND)


@pytest.fixture
def again(tmp_path):
    """Plays a transcript to another filter class; returns the differences as texts."""

    def run(transcript, klass, ignore=None):
        with serving(klass, tmp_path / "other") as to:
            return list(map(str, replay(transcript, spec.connect(to, 10), ignore)))

    return run


# ---------------------------------------------------------------------------------- recording


def test_what_passed_is_written(recorded):
    [transcript] = recorded(send)
    text = render([transcript])
    for line in (
        r"> R <e@f>\0",
        r"> L Subject\0hello\0",
        r"< h X-Subject\0hello\0",
        "> Q",
    ):
        assert line in text.splitlines()
    answers = [event.data for event in transcript.events() if isinstance(event, Answered)]
    assert [each[4:5] for each in answers] == [b"O", b"c", b"r", b"h", b"-", b"c"]
    assert transcript.events()[-1] == Sent(None)


def test_many_connections_at_once(recorded):
    def many(address):
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(send, [address] * 40))

    transcripts = recorded(many)
    assert len(transcripts) == 40
    assert len({each.title for each in transcripts}) == 40
    bodies = {render([each]).split("\n", 1)[1] for each in transcripts}
    assert len(bodies) == 1  # the testing MTA says the same each time


def test_files_are_for_their_owner_alone(recorded, tmp_path):
    recorded(send)
    folder = tmp_path / "recorded0"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}


def echo(listener):
    """A peer that sends everything back until the end, of one connection."""
    connection, _ = listener.accept()
    with connection:
        while data := connection.recv(1 << 16):
            connection.sendall(data)


def test_all_bytes_pass_both_ways(tmp_path):
    """8 MB that are no packets, and more than any buffer holds."""
    data = os.urandom(1 << 20) * 8
    with socket.create_server(("127.0.0.1", 0)) as listener:
        peer = threading.Thread(target=echo, args=(listener,))
        peer.start()
        port = listener.getsockname()[1]
        with (
            Recorder("inet:0", f"inet:{port}@127.0.0.1", tmp_path / "out") as recorder,
            spec.connect(recorder.address, 30) as mta,
            ThreadPoolExecutor(1) as pool,
        ):

            def write():
                mta.sendall(data)
                mta.shutdown(socket.SHUT_WR)

            written = pool.submit(write)
            received = b"".join(iter(lambda: mta.recv(1 << 16), b""))
            written.result()
        peer.join()
    assert received == data
    [file] = (tmp_path / "out").iterdir()
    [transcript] = parse(file.read_text())
    for kind in (Sent, Answered):
        said = [event.data or b"" for event in transcript.events() if isinstance(event, kind)]
        assert b"".join(said) == data


def test_mta_that_vanishes(recorded):
    def vanish(address):
        mta = MTA(address)
        session = mta.open()
        session.vanish()
        with spec.connect(address, 10) as connection:
            connection.sendall(b"\0\0\0\x09Mhalf")

    transcripts = recorded(vanish)
    assert [each.events()[-2:] for each in transcripts][-1] == [
        Sent(b"\0\0\0\x09Mhalf"),
        Sent(None),
    ]


def warnings(caplog):
    return [record.getMessage() for record in caplog.records if record.name == "Milter"]


def test_no_filter(tmp_path, caplog):
    """The MTA's connection is closed, as the filter's own socket would not take it."""
    with (
        Recorder(f"unix:{tmp_path}/mta", f"unix:{tmp_path}/none", tmp_path / "out") as recorder,
        spec.connect(recorder.address, 10) as mta,
    ):
        assert mta.recv(1) == b""
    assert warnings(caplog) == [
        f"cannot connect to unix:{tmp_path}/none: No such file or directory"
    ]
    assert list((tmp_path / "out").iterdir()) == []


def full_disk(monkeypatch, _folder):
    real = os.open
    monkeypatch.setattr(recording_module.os, "open", lambda *_: real("/dev/full", os.O_WRONLY))
    return "No space left on device"


def no_folder(_monkeypatch, folder):
    folder.rmdir()
    return "No such file or directory"


def too_slow(monkeypatch, _folder):
    monkeypatch.setattr(recording_module, "_BACKLOG", 100)
    return "it comes faster than it can be written"


@pytest.mark.parametrize("trouble", [full_disk, no_folder, too_slow])
def test_mail_goes_on_without_the_file(tmp_path, monkeypatch, caplog, trouble):
    folder = tmp_path / "out"
    results = []
    with (
        serving(Filter, tmp_path / "filter") as to,
        Recorder(f"unix:{tmp_path}/mta", to, folder) as recorder,
    ):
        why = trouble(monkeypatch, folder)
        for _ in range(3):
            with MTA(recorder.address) as mta:
                results.append(mta.send(*SEND))
    assert [str(each.verdict) for each in results] == ["accepted"] * 3
    assert warnings(caplog) == [f"a connection is not recorded: {why}; the mail goes on"]
    assert not folder.exists() or list(folder.iterdir()) == []


def test_lines_of_a_kind_come_seldom(caplog):
    now = [0.0]
    warning = recording_module._Warning(1.0, lambda: now[0])
    for now[0] in (0.0, 0.1, 0.9, 1.0, 1.5, 3.0):
        warning.tell("no")
    assert warnings(caplog) == ["no", "no (3 times)", "no (2 times)"]


def test_one_line_for_many_connections_without_a_filter(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(recording_module, "_EVERY", 3600.0)  # however long it takes
    to = f"unix:{tmp_path}/filter"
    with Recorder(f"unix:{tmp_path}/mta", to, tmp_path / "out") as recorder:
        for _ in range(5):
            with spec.connect(recorder.address, 30) as mta:
                assert mta.recv(1) == b""
    assert warnings(caplog) == [f"cannot connect to {to}: No such file or directory"]


def test_one_warning_where_some_can_be_written(tmp_path, caplog):
    """As on a disk that is nearly full."""
    writer = recording_module._Writer()
    (tmp_path / "there").mkdir()
    for number in range(3):
        for folder in ("missing", "there"):
            file = recording_module._File(tmp_path / folder / f"{number}.transcript", False)
            for who in ("mta", "over"):
                writer.put(file, who, b"")
    writer.close()
    assert len(list((tmp_path / "there").iterdir())) == 3
    why = "No such file or directory"
    assert warnings(caplog) == [f"a connection is not recorded: {why}; the mail goes on"]


def test_told_again_after_it_could_be_written(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(recording_module, "_SELDOM", 0.0)
    folder = tmp_path / "out"
    with (
        serving(Filter, tmp_path / "filter") as to,
        Recorder(f"unix:{tmp_path}/mta", to, folder) as recorder,
    ):

        def until(condition):
            end = time.monotonic() + 30
            while not condition():
                assert time.monotonic() < end
                time.sleep(0.005)

        for times in (1, 2):
            folder.rmdir()
            send(recorder.address)
            until(lambda times=times: len(warnings(caplog)) == times)
            folder.mkdir()
            send(recorder.address)
            until(lambda: list(folder.glob("*.transcript")))
            next(folder.iterdir()).unlink()


@given(st.lists(st.binary(max_size=20)), st.data())
def test_packets_are_cut(payloads, data):
    """However the bytes come, and whatever is left over."""
    packets = [len(each).to_bytes(4, "big") + each for each in payloads]
    whole = b"".join(packets)
    stream = whole + b"\0\0\0\x09x"
    cuts = sorted(data.draw(st.sets(st.integers(0, len(stream)))))
    cut = Packets()
    ends = [*cuts, len(stream)]
    found = [
        packet
        for start, end in zip([0, *cuts], ends, strict=True)
        for packet in cut.feed(stream[start:end])
    ]
    assert found == packets
    assert list(cut.end()) == [b"\0\0\0\x09x"]


# ------------------------------------------------------------------------------------ masking

PACKETS = [
    (_wire.TO_FILTER, b"Cmail.example.org\x004\x04\xd2192.0.2.77\0",
     b"Cxxxx.xxxxxxx.xxx\x004\x04\xd2111.1.1.11\0"),
    (_wire.TO_FILTER, b"Ch\x006\x04\xd2IPv6:2001:db8::5\0", b"Cx\x006\x04\xd2IPv6:1111:111::1\0"),
    (_wire.TO_FILTER, b"Hme.example\0", b"Hxx.xxxxxxx\0"),
    (_wire.TO_FILTER, b"M<joe@example.org>\0SIZE=123\0ENVID=abc\0",
     b"M<xxx@xxxxxxx.xxx>\0SIZE=123\0ENVID=xxx\0"),
    (_wire.TO_FILTER, b"DCj\0mx.example\0", b"DCj\0mx.example\0"),
    (_wire.TO_FILTER, b"DC{client_addr}\x0010.2.3.4\0v\0Postfix 3\0i\0A1B\0",
     b"DC{client_addr}\x0011.1.1.1\0v\0Postfix 3\0i\0x1x\0"),
    (_wire.TO_FILTER, b"LSubject\0Dear J\xc3\xb6rg,\n\t42 \0", b"LSubject\0xxxx xxxxx,\n\t11 \0"),
    (_wire.TO_FILTER, b"BHi, you!\r\n.\r\n", b"Bxxx xxxx\r\nx\r\n"),
    (_wire.TO_FILTER, b"UVRFY joe\0", b"UVRFY xxx\0"),
    (_wire.TO_FILTER, b"T", b"T"),
    (_wire.TO_MTA, b"O\0\0\0\6\0\0\1\xff\0\x1f\xff\xff", b"O\0\0\0\6\0\0\1\xff\0\x1f\xff\xff"),
    (_wire.TO_MTA, b"y550-5.1.1 no joe\r\n550 5.1.1 at all\0",
     b"y550-5.1.1 xx xxx\r\n550 5.1.1 xx xxx\0"),
    (_wire.TO_MTA, b"iabcdX-Name\0value\0", b"iabcdX-Name\0xxxxx\0"),
    (_wire.TO_MTA, b"+<joe@x.y>\0", b"+<xxx@x.x>\0"),
    (_wire.TO_MTA, b"qwhy\0", b"qxxx\0"),
    (_wire.TO_MTA, b"c", b"c"),
]  # fmt: skip


def framed(data):
    return len(data).to_bytes(4, "big") + data


@pytest.mark.parametrize(("direction", "packet", "masked"), PACKETS)
def test_masks(direction, packet, masked):
    assert mask(direction, framed(packet)) == framed(masked)


@given(st.sampled_from([_wire.TO_FILTER, _wire.TO_MTA]), st.binary(max_size=60))
def test_masks_keep_the_length(direction, data):
    packet = framed(data)
    once = mask(direction, packet)
    assert len(once) == len(packet)
    assert once[:5] == packet[:5] or len(packet) < 5
    assert mask(direction, once) == once


class Marks(Filter):
    def envrcpt(self, _rcpt, *_params):
        return Milter.CONTINUE


def test_masked_recording(recorded, again):
    [transcript] = recorded(send, Marks, masked=True)
    text = render([transcript])
    assert "masked: yes" in text
    for word in ("hello", "the body", "<a@b>", "<c@d>"):
        assert word not in text
    assert again(transcript, Marks) == []

    class Longer(Marks):
        def eom(self):
            self.subject += "!"
            return super().eom()

    class RefusesX(Filter):  # the addresses are <x@x> now
        def envrcpt(self, rcpt, *_params):
            return Milter.REJECT if rcpt == "<x@x>" else Milter.CONTINUE

    assert len(again(transcript, Longer)) == 1
    assert again(transcript, RefusesX)


# ---------------------------------------------------------------------------------- replaying


class WantsMore(Filter):
    def envfrom(self, *_args):
        return Milter.CONTINUE


class Same(Filter):
    pass


class OtherHeader(Filter):
    def addheader(self, field, value, idx=-1):
        super().addheader(field, value.upper(), idx)


class NoChange(Filter):
    def eom(self):
        return Milter.CONTINUE


class RefusesAll(Filter):
    def envrcpt(self, rcpt, *_params):
        return Milter.TEMPFAIL


class TakesAll(Filter):
    def envrcpt(self, rcpt, *_params):
        return Milter.CONTINUE


class AcceptsEarly(Filter):
    def envrcpt(self, rcpt, *_params):
        return Milter.ACCEPT


class Asks(Filter):
    def header(self, name, value):
        self.subject = value
        return Milter.CONTINUE


class Raises(Filter):
    def eom(self):
        raise RuntimeError("broken")


@pytest.mark.parametrize(
    ("klass", "expected"),
    [
        (Same, []),
        (OtherHeader, ["@@ > BODYEOB\n-< ADDHEADER X-Subject hello\n-< DELRCPT <c@d>\n-< CONTINUE\n"
                       "+< ADDHEADER X-Subject HELLO\n+< DELRCPT <c@d>\n+< CONTINUE"] * 2),
        (NoChange, ["@@ > BODYEOB\n-< ADDHEADER X-Subject hello\n-< DELRCPT <c@d>\n-< CONTINUE\n"
                    "+< CONTINUE"] * 2),
        # Without a recipient there is no message.
        (RefusesAll, ["@@ > RCPT <c@d>\n-< CONTINUE\n+< TEMPFAIL",
                      "@@ > RCPT <e@f>\n-< REJECT\n+< TEMPFAIL"] * 2),
        (TakesAll, ["@@ > RCPT <e@f>\n-< REJECT\n+< CONTINUE"] * 2),
        (AcceptsEarly, ["@@ > RCPT <c@d>\n-< CONTINUE\n+< ACCEPT"] * 2),
    ],
)  # fmt: skip
def test_differences(recorded, again, klass, expected):
    """In two messages of one connection."""

    def twice(address):
        with MTA(address) as mta:
            mta.send(*SEND)
            mta.send(*SEND)

    [transcript] = recorded(twice)
    assert again(transcript, klass) == expected


def test_another_negotiation(recorded, again):
    """It is shown, and what follows is awaited as it was negotiated now."""
    [transcript] = recorded(send)
    found = again(transcript, Asks)
    assert len(found) == 1, found
    [first] = found
    assert first.startswith("@@ > OPTNEG")
    assert "-< OPTNEG" in first
    assert "NR_HDR" in first.split("\n")[1]
    assert "NR_HDR" not in first.split("\n")[2]
    [transcript] = recorded(send, Asks)
    assert len(again(transcript, Filter)) == 1
    [first] = again(transcript, WantsMore)
    assert first.endswith("\n+it asks for steps that were not recorded: the rest is not played")


def test_a_filter_that_fails(recorded, again, caplog, monkeypatch):
    monkeypatch.setattr(sys, "unraisablehook", sys.__unraisablehook__)  # pytest has its own
    [transcript] = recorded(send)
    with caplog.at_level(logging.CRITICAL, "Milter"):
        [difference] = again(transcript, Raises)
    assert difference.endswith("+< REPLYCODE 451 4.3.0 Raises: error in the mail filter")


def test_ignored_parts(recorded, again):
    [transcript] = recorded(send)
    assert again(transcript, OtherHeader, re.compile(b"(?i)hello")) == []


def answering(data):
    """A connection to a filter that has already said all it will, and closes."""
    ours, its = socket.socketpair()
    ours.settimeout(10)
    its.sendall(data)
    its.shutdown(socket.SHUT_WR)
    return ours, its


def test_a_filter_that_closes(recorded):
    [transcript] = recorded(send)
    ours, its = answering(b"")
    with its:
        [difference] = map(str, replay(transcript, ours))
    assert difference.endswith("\n+it closes the connection")


def test_a_filter_that_says_more(recorded):
    [transcript] = recorded(send)
    said = b"".join(e.data for e in transcript.events() if isinstance(e, Answered))
    ours, its = answering(said + b"\0\0\0\1c")
    with its:
        assert list(map(str, replay(transcript, ours))) == ["@@ the end\n-no answer\n+< CONTINUE"]


def test_a_filter_that_hangs(recorded):
    [transcript] = recorded(send)
    ours, its = socket.socketpair()
    ours.settimeout(0.01)
    with its:
        [difference, *_] = map(str, replay(transcript, ours))
    assert difference.endswith("\n+nothing more in 0.01 s")


def test_a_transcript_that_is_not_whole():
    ours, its = socket.socketpair()
    with its, ours, pytest.raises(ValueError, match="goes on from another"):
        replay(parse("== x\nafter: connected\n> M <a@b>\\0\n")[0], ours)


# ----------------------------------------------------------------------------------- commands

FILE = """
import Milter
class Filter(Milter.Base):
    def eom(self):
        self.addheader("X-New", "value")
        return Milter.CONTINUE
"""


def test_commands(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "filter.py").write_text(FILE)
    (tmp_path / "other.py").write_text(FILE.replace("value", "another"))

    class New(Milter.Base):
        def eom(self):
            self.addheader("X-New", "value")
            return Milter.CONTINUE

    with serving(New, tmp_path / "filter") as to:
        process = subprocess.Popen(
            [sys.executable, "-m", "Milter", "record", "out", "--listen", "unix:mta", "--to", to,
             "--mode", "600"],
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        with process:
            assert "recording to out what passes between unix:mta and" in process.stderr.readline()
            assert (tmp_path / "mta").stat().st_mode & 0o777 == 0o600
            send("unix:mta")
            process.send_signal(signal.SIGTERM)
            assert process.stderr.read() == ""
        assert process.returncode == 0
        assert main(["replay", "out", "--to", to]) == 0
        assert capsys.readouterr().out == "1 sessions played, 0 answered otherwise\n"
    [file] = (tmp_path / "out").iterdir()
    assert main(["replay", str(file), "--to", "filter.py:Filter"]) == 0
    capsys.readouterr()
    assert main(["replay", str(file), str(file), "--to", "other.py"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{file}: {file.stem}: answers otherwise"
    assert "  -< ADDHEADER X-New value" in lines
    assert "  +< ADDHEADER X-New another" in lines
    assert lines[-1] == "2 sessions played, 2 answered otherwise"
    assert main(["replay", "out", "--to", "other.py", "--ignore", "value|another"]) == 0


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["replay", "none", "--to", "unix:x"], (2, "none: No such file or directory")),
        (["replay", "bad", "--to", "unix:x"], (2, "bad: line 1: a transcript begins with ==")),
        (["replay", "good", "--to", "unix:x"], (15, "cannot connect to unix:x: No such file")),
        (["replay", "good", "--to", "x.py"], (2, "x.py: no such file")),
        (["record", "good", "--listen", "unix:x", "--to", "unix:y"], (1, "good: File exists")),
        (
            ["record", "out", "--listen", "tcp:1", "--to", "unix:y"],
            (1, 'socket specification "tcp:1": the'),
        ),
        (
            ["record", "out", "--listen", "unix:", "--to", "unix:y"],
            (1, 'socket specification "unix:": the'),
        ),
        (
            ["record", "out", "--listen", "inet:99999", "--to", "unix:y"],
            (1, 'socket specification "inet:99999": the port is'),
        ),
    ],
)
def test_errors_are_one_line(tmp_path, monkeypatch, capsys, arguments, expected):
    status, error = expected
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad").write_text("what\n")
    (tmp_path / "good").write_text("== x\n> Q\n")
    assert main(arguments) == status
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"milterkit: {error}")
    assert err.count("\n") == 1


def test_listening_takes_no_place(tmp_path):
    """A socket that somebody answers on stays his; one that nobody does is taken over."""
    path = tmp_path / "socket"
    first = spec.listen(f"unix:{path}")
    with pytest.raises(spec.ConnectError, match="Address already in use"):
        spec.listen(f"unix:{path}")
    first.close()
    second = spec.listen(f"unix:{path}", 0o600)
    assert spec.address_of(second) == f"unix:{path}"
    spec.unlisten(second)
    assert not path.exists()
    with spec.listen("inet:0") as third:
        assert re.fullmatch(r"inet:\d+@\[0\.0\.0\.0\]", spec.address_of(third))
        spec.connect(spec.address_of(third), 10).close()
