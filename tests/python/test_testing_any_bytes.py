"""Milter.testing against a filter that answers any bytes: the result is a Result or a
ProtocolError, never another exception, and no waiting for what does not come."""

from __future__ import annotations

import contextlib
import struct

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from Milter import _wire
from Milter.testing import (
    POSTFIX,
    SENDMAIL,
    Client,
    Conversation,
    Message,
    Need,
    Offer,
    Profile,
    ProtocolError,
    Result,
    deliver,
)
from Milter.testing.steps import Steps

CONTENT = b"Subject: one\nX-A: 1\nX-A: 2\n folded\n\nbody\n\nmore\n"
MESSAGE = Message(CONTENT, ("a@b", "SIZE=1"), (("c@d",), ("e@f", "NOTIFY=NEVER")), {"i": "Q1"})
ALL = Offer(6, 0x1FF, 0x1FFFFF)


def packet(command: bytes, data: bytes = b"") -> bytes:
    return struct.pack(">I", len(data) + 1) + command + data


NEGOTIATION = packet(b"O", struct.pack(">III", 6, 0x1FF, 0))


# ------------------------------------------------------------------------------- what it answers

texts = st.binary(max_size=12).map(lambda text: text.replace(b"\0", b""))
strings = texts.map(lambda text: text + b"\0")
numbers = st.sampled_from([0, 1, 2, 7, 0xFFFF, 0xFFFFFFFF]).map(lambda n: struct.pack(">I", n))
codes = st.sampled_from([bytes([code]) for code in b"+-24Oabcdefhilmpqrsty?\0"])
replies = st.sampled_from(
    [b"550 no", b"550 5.7.1 no", b"451-4.7.1 a\r\n451 4.7.1 b", b"421 x", b"550 4.7.1 x", b"250 x",
     b"550 100%", b"550 %%", b"55", b"550-a\r\n451 b", b"550 a\r\n", b"550"]
).map(lambda text: text + b"\0")  # fmt: skip

packets = st.one_of(
    st.sampled_from([packet(bytes([code])) for code in b"cccardsptb"]),
    st.builds(packet, st.just(b"y"), replies),
    st.builds(packet, st.sampled_from([b"+", b"-", b"2", b"e", b"q", b"y", b"b"]), strings),
    st.builds(lambda a, b: packet(b"h", a + b), strings, strings),
    st.builds(lambda c, n, a, b: packet(c, n + a + b), st.sampled_from([b"i", b"m"]), numbers,
              strings, strings),
    st.builds(packet, codes, st.binary(max_size=20)),
    st.binary(max_size=20),
)  # fmt: skip

# Mostly negotiation as it should be, so that the rest is reached.
ask = st.builds(
    lambda version, actions, protocol, lists: packet(
        b"O", struct.pack(">III", version, actions, protocol) + lists
    ),
    st.sampled_from([6, 6, 6, 2, 1, 7]),
    st.sampled_from([0x1FF, 0x1FF, 0, 0x200]),
    st.sampled_from([0, 0x400, 0x400, 0xFF080, 0x3FF, 0x17E, 0xFF480, 0x200000]),
    st.sampled_from([b"", b"", b"\0\0\0\0j {x}\0", b"\0\0\0\5\0", b"\0\0\0\x09i\0", b"\0\0\0"]),
)
# What comes at once: a packet, two of them, half of one. An answer that came too early is an error.
arrivals = st.one_of(
    packets,
    packets,
    st.just(packet(b"c")),
    st.builds(bytes.__add__, packets, packets),
    st.builds(lambda whole, at: whole[:at], packets, st.integers(0, 9)),
)
answers = st.lists(arrivals, max_size=25)
streams = st.one_of(st.builds(lambda first, rest: [first, *rest], ask, answers), answers)


# ------------------------------------------------------------------------------------ the driver


def converse(conversation: Conversation) -> Steps[list[Result]]:
    """Two messages on one connection."""
    yield from conversation.negotiate()
    yield from conversation.connect(Client())
    yield from conversation.helo("me")
    results = []
    for _ in range(2):
        results.append((yield from deliver(conversation, MESSAGE)))
    yield from conversation.unknown("FOO bar")
    conversation.quit()
    return results


def drive(
    arrivals: list[bytes], pieces: int, profile: Profile = POSTFIX, strict: bool = True
) -> list[Result] | ProtocolError:
    """Gives what arrives when something is awaited, each in pieces of this size, then the end."""
    conversation = Conversation(profile, ALL, strict=strict)
    steps = converse(conversation)
    coming = iter(
        [each[at : at + pieces] for each in arrivals for at in range(0, len(each), pieces)]
    )
    ended = False
    try:
        while True:
            need = next(steps)
            conversation.take_output()
            if need is Need.INPUT:
                assert not ended, "it waits although the filter has closed"
                data = next(coming, b"")
                conversation.feed(data)
                ended = not data
    except StopIteration as done:
        results: list[Result] = done.value
        return results
    except ProtocolError as error:
        return error


@settings(max_examples=800)
@given(
    streams,
    st.sampled_from([1, 3, 1000]),
    st.sampled_from([POSTFIX, SENDMAIL]),
    st.booleans(),
)
@example([NEGOTIATION, *[packet(b"c")] * 40], 1000, POSTFIX, True)
@example([NEGOTIATION, *[packet(b"c")] * 10, packet(b"b")], 1, SENDMAIL, False)
def test_a_result_or_a_protocol_error(
    arrivals: list[bytes], pieces: int, profile: Profile, strict: bool
) -> None:
    outcome = drive(arrivals, pieces, profile, strict)
    if isinstance(outcome, ProtocolError):
        assert strict
        assert outcome.step
        assert outcome.what
        assert "\n" not in str(outcome)
        return
    for result in outcome:
        assert isinstance(result, Result)
        assert repr(result)
        assert isinstance(result.message, bytes)
        assert {each.address for each in result.recipients} <= {
            *result.envelope.rcpts,
            "c@d",
            "e@f",
        }


@pytest.mark.parametrize("pieces", [1, 7, 1000])
def test_the_driver_gets_to_the_end(pieces: int) -> None:
    """So that the test above is not one of negotiation alone."""
    go_on = [packet(b"c")]
    message = [*go_on * 9, packet(b"h", b"X\0v\0") + packet(b"c")]
    outcome = drive([NEGOTIATION, *go_on * 2, *message, *go_on * 10, *go_on], pieces)
    assert isinstance(outcome, list), outcome
    assert [b"X: v" in result.message for result in outcome] == [True, False]


@settings(max_examples=300)
@given(st.sampled_from([_wire.TO_MTA, _wire.TO_FILTER]), streams)
def test_the_decoder_takes_any_bytes(direction: int, arrivals: list[bytes]) -> None:
    """Packets or PacketError; what is decoded is encoded again."""
    decoder = _wire.Decoder(direction, 1000)
    for each in arrivals:
        decoder.feed(each)
        with contextlib.suppress(_wire.PacketError):
            while found := decoder.next():
                again = _wire.Decoder(direction)
                again.feed(_wire.encode(direction, *found))
                assert again.next() == found
