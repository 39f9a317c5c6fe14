"""Milter.testing: results with exact bytes, the conversation without I/O, sessions on sockets."""

import email.message
import socket
from contextlib import suppress

import pytest
from fake import GO_ON, FakeFilter, answer, options, packet
from Milter import _wire
from Milter.testing import (
    MTA,
    POSTFIX,
    SENDMAIL,
    AddHeader,
    AddRecipient,
    Answer,
    ChangeHeader,
    ChangeSender,
    Client,
    ConnectError,
    Conversation,
    DeleteRecipient,
    Envelope,
    FilterClosed,
    FilterTimeout,
    InsertHeader,
    Message,
    Need,
    Offer,
    ProtocolError,
    Quarantine,
    RecipientResult,
    ReplaceBody,
    Reply,
    SessionOver,
    Verdict,
    deliver,
)
from Milter.testing.postfix import PostfixDraft

ENVELOPE = Envelope("a@b", ("c@d", "e@f"))
MESSAGE = b"Subject: one\nX-A: 1\nx-a: 2\n folded\nTo: c@d\n\nbody\n"


def changed(*changes, message=MESSAGE, **options):
    draft = PostfixDraft(message, ENVELOPE, **options)
    for change in changes:
        change.apply(draft)
    return draft


# ------------------------------------------------------------------------------------- changes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ([], MESSAGE),
        ([AddHeader("X", "v")],
         b"Subject: one\nX-A: 1\nx-a: 2\n folded\nTo: c@d\nX: v\n\nbody\n"),
        ([AddHeader("X", "a\n\tb")],
         b"Subject: one\nX-A: 1\nx-a: 2\n folded\nTo: c@d\nX: a\n\tb\n\nbody\n"),
        ([AddHeader("X", "")],
         b"Subject: one\nX-A: 1\nx-a: 2\n folded\nTo: c@d\nX: \n\nbody\n"),
        ([AddHeader("X", "\udcff")],
         b"Subject: one\nX-A: 1\nx-a: 2\n folded\nTo: c@d\nX: \xff\n\nbody\n"),
        ([InsertHeader(0, "X", "v")],
         b"X: v\nSubject: one\nX-A: 1\nx-a: 2\n folded\nTo: c@d\n\nbody\n"),
        ([InsertHeader(1, "X", "below"), InsertHeader(0, "X", "above")],
         b"X: above\nX: below\nSubject: one\nX-A: 1\nx-a: 2\n folded\nTo: c@d\n\nbody\n"),
        ([InsertHeader(0, "X", "above"), InsertHeader(1, "X", "below")],
         b"X: above\nX: below\nSubject: one\nX-A: 1\nx-a: 2\n folded\nTo: c@d\n\nbody\n"),
        ([InsertHeader(2, "X", "v")],
         b"Subject: one\nX: v\nX-A: 1\nx-a: 2\n folded\nTo: c@d\n\nbody\n"),
        ([InsertHeader(99, "X", "v")],
         b"Subject: one\nX-A: 1\nx-a: 2\n folded\nTo: c@d\nX: v\n\nbody\n"),
        ([ChangeHeader(1, "X-A", "v")],
         b"Subject: one\nX-A: v\nx-a: 2\n folded\nTo: c@d\n\nbody\n"),
        ([ChangeHeader(0, "X-A", "v")],
         b"Subject: one\nX-A: v\nx-a: 2\n folded\nTo: c@d\n\nbody\n"),
        ([ChangeHeader(2, "X-A", "v")],
         b"Subject: one\nX-A: 1\nX-A: v\nTo: c@d\n\nbody\n"),
        ([ChangeHeader(3, "X-A", "v")],
         b"Subject: one\nX-A: 1\nx-a: 2\n folded\nTo: c@d\nX-A: v\n\nbody\n"),
        ([ChangeHeader(2, "X-A", "")], b"Subject: one\nX-A: 1\nTo: c@d\n\nbody\n"),
        ([ChangeHeader(1, "X-A", ""), ChangeHeader(1, "X-A", "")],
         b"Subject: one\nTo: c@d\n\nbody\n"),
        ([ChangeHeader(3, "X-A", "")], MESSAGE),
        ([ChangeHeader(1, "Received", "x")],
         b"Subject: one\nX-A: 1\nx-a: 2\n folded\nTo: c@d\nReceived: x\n\nbody\n"),
        ([ReplaceBody(b"new\r\ntwo\r\n")],
         b"Subject: one\nX-A: 1\nx-a: 2\n folded\nTo: c@d\n\nnew\ntwo\n"),
        ([ReplaceBody(b"lone\rcr, no end")],
         b"Subject: one\nX-A: 1\nx-a: 2\n folded\nTo: c@d\n\nlone\rcr, no end\n"),
        ([ReplaceBody(b"")], b"Subject: one\nX-A: 1\nx-a: 2\n folded\nTo: c@d\n\n"),
    ],
)  # fmt: skip
def test_changes_to_the_message(changes, message):
    assert changed(*changes).message == message


def test_line_ends_of_the_message_are_kept():
    message = MESSAGE.replace(b"\n", b"\r\n")
    assert changed(message=message).message == message
    assert changed(
        AddHeader("X", "a\n b"), ReplaceBody(b"new\r\n"), message=b"A: 1\r\n\r\nbody\r\n"
    ).message == b"A: 1\r\nX: a\r\n b\r\n\r\nnew\r\n"  # fmt: skip
    assert changed(AddHeader("X", "a\r\n b"), message=b"A: 1\n\n").message == (
        b"A: 1\nX: a\r\n b\n\n"
    )


def test_leading_space_is_the_filters_when_negotiated():
    draft = changed(AddHeader("X", "v"), AddHeader("Y", "  w"), leading_space=True,
                    message=b"A:  1\nB:2\n\n")  # fmt: skip
    assert draft.message == b"A:  1\nB:2\nX:v\nY:  w\n\n"
    assert list(draft.wire_headers())[:2] == [(b"A", b"  1"), (b"B", b"2")]
    draft = changed(message=b"A:  1\nB:2\nC:\t3\nD : 4\0x\n\n")
    assert list(draft.wire_headers()) == [(b"A", b" 1"), (b"B", b"2"), (b"C", b"\t3"), (b"D", b"4")]


@pytest.mark.parametrize(
    ("message", "headers", "body", "out"),
    [
        (b"", [], b"", b""),
        (b"\n", [], b"", b"\n"),
        (b"no header\n", [], b"no header\r\n", b"\nno header\n"),
        (b" leading\nA: 1\n", [], b" leading\r\nA: 1\r\n", b"\n leading\nA: 1\n"),
        (b"A: 1", [(b"A", b"1")], b"", b"A: 1\n"),
        (b"A \t: 1\n : 2\n", [(b"A", b"1\n : 2")], b"", b"A: 1\n : 2\n"),
        (b"A: 1\ntext\n\nmore", [(b"A", b"1")], b"text\r\n\r\nmore\r\n", b"A: 1\n\ntext\n\nmore\n"),
        (b"A: 1\r\n 2\n\n\r\n", [(b"A", b"1\n 2")], b"\r\n", b"A: 1\r\n 2\r\n\r\n\r\n"),
        (b"A:\n\n\0\xff\r\r\n", [(b"A", b"")], b"\0\xff\r\n", b"A:\n\n\0\xff\n"),
    ],
)
def test_messages_that_are_hardly_mail(message, headers, body, out):
    draft = changed(message=message)
    assert list(draft.wire_headers()) == headers
    assert b"".join(draft.wire_body(3)) == body
    assert draft.message == out


def test_an_empty_body_has_its_blank_line():
    assert changed(ReplaceBody(b""), message=b"A: 1\ntext\n").message == b"A: 1\n\n"
    assert changed(ReplaceBody(b""), message=b"A: 1\n").message == b"A: 1\n\n"


def test_changes_to_the_envelope():
    assert changed(AddRecipient("<new@x>")).envelope.rcpts == ("c@d", "e@f", "new@x")
    assert changed(AddRecipient("<c@d>")).envelope.rcpts == ("c@d", "e@f", "c@d")
    assert changed(AddRecipient("<g@h>"), AddRecipient("G@H")).envelope.rcpts == (
        "c@d",
        "e@f",
        "g@h",
    )
    assert changed(AddRecipient("n@x", "NOTIFY=NEVER")).envelope == Envelope(
        "a@b", ("c@d", "e@f", "n@x"), rcpt_params={"n@x": "NOTIFY=NEVER"}
    )
    assert changed(DeleteRecipient("<c@d>")).envelope.rcpts == ("e@f",)
    assert changed(DeleteRecipient("<x@y>")).envelope.rcpts == ("c@d", "e@f")
    assert changed(DeleteRecipient("<C@d>")).envelope.rcpts == ("c@d", "e@f")
    assert changed(
        AddRecipient("g@h"), DeleteRecipient("G@h"), AddRecipient("g@h"), DeleteRecipient("c@d")
    ).envelope.rcpts == ("e@f", "g@h", "g@h")
    assert changed(ChangeSender("<>", "RET=HDRS")).envelope.lines() == [
        "MAIL FROM:<> RET=HDRS",
        "RCPT TO:<c@d>",
        "RCPT TO:<e@f>",
    ]
    assert changed().quarantined is None
    assert changed(Quarantine("why")).quarantined == "why"


# ------------------------------------------------------------------------------------- replies


@pytest.mark.parametrize(
    ("text", "reply"),
    [
        ("550 5.7.1 no way", Reply(550, "5.7.1", "no way")),
        ("450 later", Reply(450, None, "later")),
        ("550 ", Reply(550, None, "")),
        ("550", Reply(550, None, "")),
        ("550 5.7.1", Reply(550, "5.7.1", "")),
        ("550-5.7.1 one\r\n550 5.7.1 two", Reply(550, "5.7.1", "one\ntwo")),
        ("550 5.7.1 100%% of %s", Reply(550, "5.7.1", "100% of s")),
    ],
)
def test_reply_texts(text, reply):
    assert POSTFIX.read_reply(text) == reply


@pytest.mark.parametrize(
    "text",
    ["", "250 ok", "5500 x", "55 x", "abc", "550 4.7.1 x", "550-a\r\n551 b", "550 a\nb", "550 a\r"],
)
def test_malformed_reply_texts(text):
    with pytest.raises(ValueError):  # noqa: PT011  # that it is refused counts
        POSTFIX.read_reply(text)


def test_reply_as_smtp_has_it():
    assert str(Reply(550, "5.7.1", "one\ntwo")) == "550-5.7.1 one\n550 5.7.1 two"
    assert str(Reply(451, None, "later")) == "451 later"


# ------------------------------------------------------------------------ the conversation alone

FULL = Offer(6, 0x1FF, 0x1FFFFF)


class Quiet(type(POSTFIX)):
    """Postfix without macros and ABORT, so that scripts of packets are short."""

    def aborts_after(self, step, answer, answered):
        return ""

    def aborts_at_quit(self, said_helo):
        return False


QUIET = Quiet(**{**vars(POSTFIX), "macros": {}})


def play(conversation, steps, script):
    """Drives steps; script has (bytes that must have been sent, bytes to answer) in order."""
    script = iter(script)
    try:
        while True:
            assert next(steps) is Need.INPUT
            expected, reply = next(script)
            assert conversation.take_output() == expected
            conversation.feed(reply)
    except StopIteration as end:
        assert list(script) == []
        return end.value


def negotiated(answered=None, *, profile=QUIET, offer=FULL, macros=None):
    conversation = Conversation(profile, offer, macros=macros)
    play(conversation, conversation.negotiate(),
         [(packet(b"O", offer.version, offer.actions, offer.protocol), answered or options())],
         )  # fmt: skip
    return conversation


def message(content=b"A: 1\n\nx\n", rcpts=("c@d",), **macros):
    return Message(content, ["a@b"], [[rcpt] for rcpt in rcpts], macros)


MAIL, RCPT, DATA = packet(b"M", [b"<a@b>"]), packet(b"R", [b"<c@d>"]), packet(b"T")
HEADER, EOH, BODY, EOM = (
    packet(b"L", b"A", b"1"),
    packet(b"N"),
    packet(b"B", b"x\r\n"),
    b"\0\0\0\1E",
)
STEPS = [MAIL, RCPT, DATA, HEADER, EOH, BODY, EOM]
NAMES = ["mail", "rcpt", "data", "header", "eoh", "body", "eom"]


def up_to(step, reply):
    """A script in which all steps are answered by CONTINUE, and `step` by `reply`."""
    place = NAMES.index(step)
    return [(sent, GO_ON) for sent in STEPS[:place]] + [(STEPS[place], reply)]


def test_a_whole_message():
    conversation = negotiated()
    result = play(conversation, deliver(conversation, message()), up_to("eom", GO_ON))
    assert result.verdict == "accepted"
    assert (result.step, result.reply, result.changes) == ("eom", None, ())
    assert result.message == b"A: 1\n\nx\n"
    assert result.diff() == ""
    assert str(result.verdict) == f"{result.verdict}" == "accepted"


@pytest.mark.parametrize("step", NAMES)
@pytest.mark.parametrize(
    ("reply", "verdict", "text"),
    [
        (b"a", "accepted", None),
        (b"d", "discarded", None),
        (b"r", "rejected", "550 5.7.1 Command rejected"),
        (b"t", "tempfailed", "451 4.7.1 Service unavailable - try again later"),
        (b"y554 5.6.0 bad\0", "rejected", "554 5.6.0 bad"),
        (b"y450 wait\0", "tempfailed", "450 wait"),
    ],
)
def test_every_verdict_at_every_step(step, reply, verdict, text):
    conversation = negotiated()
    result = play(conversation, deliver(conversation, message()), up_to(step, answer(reply)))
    assert (result.verdict, result.step) == (verdict, step)
    assert (result.reply and str(result.reply)) == text
    assert result.recipients == (RecipientResult("c@d", Verdict(verdict), result.reply),)
    assert conversation.take_output() == b""
    assert conversation.held is None


@pytest.mark.parametrize("step", NAMES)
def test_shutdown(step):
    """Postfix hangs up, but in the content it takes it for ACCEPT."""
    conversation = negotiated()
    result = play(conversation, deliver(conversation, message()), up_to(step, answer(b"4")))
    if step in ("mail", "rcpt", "data"):
        assert str(result.reply) == "421 4.7.0 Server closing connection"
        assert conversation.held == (step, Answer("tempfail", result.reply))
    else:
        assert (result.verdict, conversation.held) == ("accepted", None)


def test_recipients_are_refused_one_by_one():
    conversation = negotiated()
    result = play(
        conversation,
        deliver(conversation, message(b"\n", rcpts=["c@d", "no@d", "later@d"])),
        [
            (MAIL, GO_ON),
            (RCPT, GO_ON),
            (packet(b"R", [b"<no@d>"]), answer(b"y550 5.1.1 no\0")),
            (packet(b"R", [b"<later@d>"]), answer(b"t")),
            (DATA, GO_ON),
            (EOH, GO_ON),
            (EOM, GO_ON),
        ],
    )
    assert result.verdict == "accepted"
    assert [(each.address, str(each.verdict)) for each in result.recipients] == [
        ("c@d", "accepted"), ("no@d", "rejected"), ("later@d", "tempfailed"),
    ]  # fmt: skip
    assert result.recipients[1].reply == Reply(550, "5.1.1", "no")
    assert result.envelope.rcpts == ("c@d",)
    assert result.diff().split("\n") == [
        "--- envelope",
        "+++ envelope (filtered)",
        "@@ -1,4 +1,2 @@",
        " MAIL FROM:<a@b>",
        " RCPT TO:<c@d>",
        "-RCPT TO:<no@d>",
        "-RCPT TO:<later@d>",
    ]


@pytest.mark.parametrize(
    ("replies", "verdict"), [(b"rr", "rejected"), (b"rt", "tempfailed"), (b"tr", "tempfailed")]
)
def test_all_recipients_refused(replies, verdict):
    conversation = negotiated()
    result = play(conversation, deliver(conversation, message(rcpts=["c@d", "c@d"])),
                  [(MAIL, GO_ON), (RCPT, answer(replies[:1])), (RCPT, answer(replies[1:]))],
                  )  # fmt: skip
    assert (result.verdict, result.step) == (verdict, "rcpt")


@pytest.mark.parametrize(("reply", "verdict"), [(b"a", "accepted"), (b"d", "discarded")])
def test_accept_and_discard_at_a_recipient_are_for_the_message(reply, verdict):
    conversation = negotiated()
    result = play(conversation, deliver(conversation, message(rcpts=["c@d", "e@f"])),
                  [(MAIL, GO_ON), (RCPT, answer(reply))])  # fmt: skip
    assert (result.verdict, result.step) == (verdict, "rcpt")
    assert [str(each.verdict) for each in result.recipients] == [verdict] * 2


def test_changes_arrive_typed_and_in_order():
    replies = answer(
        b"hX\0v\0", b"i\0\0\0\0Y\0w\0", b"m\0\0\0\x02A\0\0", b"+<p@q>\0", b"2<r@s>\0N=1\0",
        b"2<t@u>\0", b"-<c@d>\0", b"e<f@g>\0", b"p", b"bone", b"btwo", b"qwhy\0", b"c",
    )  # fmt: skip
    conversation = negotiated()
    result = play(conversation, deliver(conversation, message()), up_to("eom", replies))
    assert result.changes == (
        AddHeader("X", "v"), InsertHeader(0, "Y", "w"), ChangeHeader(2, "A", ""),
        AddRecipient("<p@q>"), AddRecipient("<r@s>", "N=1"), AddRecipient("<t@u>", ""),
        DeleteRecipient("<c@d>"), ChangeSender("<f@g>"), ReplaceBody(b"onetwo"),
        Quarantine("why"),
    )  # fmt: skip
    assert (result.verdict, result.quarantine) == ("quarantined", "why")
    assert result.message == b"Y: w\nA: 1\nX: v\n\nonetwo\n"
    assert result.envelope == Envelope("f@g", ("p@q", "r@s", "t@u"), "", {"r@s": "N=1"})
    assert result.original.message == b"A: 1\n\nx\n"
    assert "< REPLBODY 3 bytes: one" in result.trace


def test_a_rejected_message_is_not_quarantined():
    conversation = negotiated()
    result = play(
        conversation, deliver(conversation, message()), up_to("eom", answer(b"qwhy\0", b"r"))
    )
    assert result.verdict == "rejected"
    assert result.changes == (Quarantine("why"),)


@pytest.mark.parametrize(
    ("actions", "reply"),
    [
        ("ADDHDRS", b"hX\0v\0"), ("ADDHDRS", b"i\0\0\0\0X\0v\0"), ("CHGHDRS", b"m\0\0\0\0X\0v\0"),
        ("ADDRCPT", b"+x\0"), ("ADDRCPT_PAR", b"2x\0"), ("DELRCPT", b"-x\0"),
        ("CHGFROM", b"ex\0"), ("CHGBODY", b"b"), ("QUARANTINE", b"qx\0"),
    ],
)  # fmt: skip
def test_actions_need_negotiation_and_the_end_of_the_message(actions, reply):
    conversation = negotiated(options(actions=0x1FF & ~_wire.ACTIONS[actions]))
    with pytest.raises(ProtocolError, match=f"needs the action {actions}, which was not") as caught:
        play(conversation, deliver(conversation, message()), up_to("eom", answer(reply, b"c")))
    assert caught.value.step == "eom"
    conversation = negotiated()
    with pytest.raises(ProtocolError, match="at the end of the message only") as caught:
        play(conversation, deliver(conversation, message()), up_to("body", answer(reply, b"c")))
    assert caught.value.step == "body"
    conversation = negotiated(options(actions=_wire.ACTIONS[actions]))
    result = play(conversation, deliver(conversation, message()),
                  up_to("eom", answer(reply, b"c")))  # fmt: skip
    assert len(result.changes) == 1


@pytest.mark.parametrize(
    ("step", "reply", "says"),
    [
        ("mail", answer(b"c", b"r"), "at mail: REJECT came unasked"),
        ("eom", answer(b"bone", b"hX\0v\0", b"btwo", b"c"), "its chunks must follow each other"),
        ("eom", answer(b"bone", b"p", b"btwo", b"c"), "its chunks must follow each other"),
        ("eom", answer(b"h\0v\0", b"c"), "ADDHEADER without a header name"),
        ("eom", answer(b"hX\0v\nBcc: x@y\0", b"c"), "ADDHEADER: a line of the value does not"),
        ("eom", answer(b"i\0\0\0\0X\0v\r\n\0", b"c"), "INSHEADER: a line of the value does not"),
        ("eom", answer(b"m\0\0\0\1X\0v\rw\0", b"c"), "CHGHEADER: a line of the value does not"),
        ("eom", answer(b"hX\0v\n \n w\0", b"c"), "ADDHEADER: a line of the value is white space"),
        ("eom", answer(b"hX\0v\n w\r\n\tx\0", b"hX\0\n w\0", b"s"), "SKIP at the end"),
        ("eom", answer(b"s"), "SKIP at the end of the message"),
        ("body", answer(b"s"), "SKIP, which was not negotiated"),
        ("rcpt", answer(b"y550 4.7.1 x\0"), "at rcpt: malformed REPLYCODE"),
        ("rcpt", answer(b"y250 fine\0"), "at rcpt: malformed REPLYCODE"),
        ("data", answer(b"f"), "at data: CONN_FAIL is no answer to DATA"),
        ("data", answer(b"Z"), "at data: malformed packet, 'Z': there is no such packet"),
        ("eoh", answer(b"cx"), "at eoh: malformed packet, CONTINUE: it has data left over"),
        ("header", b"\0\0\0\0", "at header: malformed packet, a packet of length 0"),
        ("mail", b"", "at mail: the filter closed the connection"),
        ("header", options(), "OPTNEG is no answer to HEADER"),
    ],
)
def test_protocol_errors_say_what_and_where(step, reply, says):
    conversation = negotiated()
    with pytest.raises(ProtocolError) as caught:
        play(conversation, deliver(conversation, message()), up_to(step, reply))
    assert says in str(caught.value)
    assert conversation.over
    with pytest.raises(ProtocolError) as again:
        play(conversation, deliver(conversation, message()), [])
    assert again.value is caught.value


@pytest.mark.parametrize("step", ["mail", "rcpt", "data"])
def test_skip_before_the_headers(step):
    """Sendmail then ignores the filter; Postfix sends no more of that kind."""
    profile = Quiet(**{**vars(QUIET), "meanings": SENDMAIL.meanings})
    conversation = negotiated(options(protocol=0x400), profile=profile)
    with pytest.raises(ProtocolError, match=f"at {step}: SKIP before the headers"):
        play(conversation, deliver(conversation, message()), up_to(step, answer(b"s")))
    conversation = negotiated(options(protocol=0x400))
    script = up_to("eom", GO_ON)
    script[NAMES.index(step)] = (STEPS[NAMES.index(step)], answer(b"s"))
    result = play(conversation, deliver(conversation, message()), script)
    assert result.verdict == "accepted"


def test_closed_inside_a_packet():
    conversation = negotiated()
    steps = conversation.mail("a@b")
    assert next(steps) is Need.INPUT
    conversation.feed(b"\0\0")
    assert next(steps) is Need.INPUT
    conversation.feed(b"")
    with pytest.raises(FilterClosed, match="inside a packet"):
        next(steps)


@pytest.mark.parametrize(
    ("offer", "reply", "says"),
    [
        (FULL, options(version=7), "version 7 where 6 was offered"),
        (Offer(4, 0x1FF, 0x3FF), options(version=6), "version 6 where 4 was offered"),
        (FULL, options(version=1), "version 1"),
        (Offer(6, 0x3F, 0x1FFFFF), options(actions=0x1FF), "actions 0x1c0 were not offered"),
        (Offer(6, 0x1FF, 0x3FF), options(protocol=0x400), "protocol options 0x400 were not"),
        (FULL, options(lists=b"\0\0\0\x07i\0"), "macro list for stage 7"),
        (FULL, answer(b"c"), "CONTINUE instead of OPTNEG"),
        (FULL, answer(b"O\0\0\0\x06"), "OPTNEG: it is too short"),
    ],
)
def test_bad_negotiation(offer, reply, says):
    with pytest.raises(ProtocolError) as caught:
        negotiated(reply, offer=offer)
    assert says in str(caught.value)
    assert caught.value.step == "negotiate"


@pytest.mark.parametrize(
    ("bit", "missing"),
    [("NOMAIL", 0), ("NORCPT", 1), ("NODATA", 2), ("NOHDRS", 3), ("NOEOH", 4), ("NOBODY", 5)],
)
def test_steps_not_wanted_are_not_sent(bit, missing):
    conversation = negotiated(options(protocol=_wire.PROTOCOL[bit]))
    script = [(sent, GO_ON) for place, sent in enumerate(STEPS) if place != missing]
    result = play(conversation, deliver(conversation, message()), script)
    assert result.verdict == "accepted"


def test_no_reply_steps_are_sent_without_waiting():
    bits = ("NR_MAIL", "NR_RCPT", "NR_DATA", "NR_HDR", "NR_EOH", "NR_BODY")
    conversation = negotiated(options(protocol=sum(_wire.PROTOCOL[bit] for bit in bits)))
    result = play(
        conversation, deliver(conversation, message()), [(b"".join(STEPS), answer(b"p", b"c"))]
    )
    assert result.verdict == "accepted"


def test_much_output_is_sent_in_between():
    conversation = negotiated(options(protocol=_wire.PROTOCOL["NR_BODY"]))
    content = b"\n" + b"x" * 999_999 + b"\n"
    steps = deliver(conversation, message(content))
    sent = bytearray()
    needs = []
    with suppress(StopIteration):
        while True:
            needs.append(next(steps))
            assert len(conversation.output) < 500_000
            sent += conversation.take_output()
            if needs[-1] is Need.INPUT:
                conversation.feed(GO_ON)
    assert needs.count(Need.ROOM) == 3
    chunks = b"".join(
        packet(b"B", (b"x" * 999_999 + b"\r\n")[at : at + 65535])
        for at in range(0, 1_000_001, 65535)
    )
    assert bytes(sent) == MAIL + RCPT + DATA + EOH + chunks + EOM


def test_skip_ends_that_kind_of_step_for_the_message():
    conversation = negotiated(options(protocol=_wire.PROTOCOL["SKIP"]))
    content = b"A: 1\nA: 1\n\n" + b"x" * 70000
    first = packet(b"B", b"x" * 65535)
    script = [(MAIL, GO_ON), (RCPT, GO_ON), (DATA, GO_ON), (HEADER, answer(b"s")), (EOH, GO_ON),
              (first, answer(b"s")), (EOM, GO_ON)]  # fmt: skip
    for _ in range(2):  # the second message starts afresh
        result = play(conversation, deliver(conversation, message(content)), script)
        assert result.verdict == "accepted"


def test_older_versions_lack_steps():
    for version, unknown, data in ((2, 0, 0), (3, 1, 0), (4, 1, 1)):
        conversation = negotiated(options(version=version))
        play(conversation, conversation.unknown("FOO"), [(packet(b"U", b"FOO"), GO_ON)] * unknown)
        play(conversation, conversation.data(), [(DATA, GO_ON)] * data)


def test_leading_space_follows_the_negotiation():
    conversation = negotiated(options(protocol=_wire.PROTOCOL["HDR_LEADSPC"]))
    script = up_to("eom", answer(b"hX\0v\0", b"c"))
    script[3] = (packet(b"L", b"A", b" 1"), GO_ON)
    result = play(conversation, deliver(conversation, message()), script)
    assert result.message == b"A: 1\nX:v\n\nx\n"


@pytest.mark.parametrize(
    ("reply", "held"), [(b"r", True), (b"t", True), (b"a", True), (b"d", False), (b"c", False)]
)
def test_what_decides_for_the_connection(reply, held):
    conversation = negotiated()
    connect = packet(b"C", b"localhost", b"4", 54321, b"127.0.0.1")
    play(conversation, conversation.connect(Client()), [(connect, answer(reply))])
    assert (conversation.held is not None) == held
    if held:
        for _ in range(2):
            result = play(conversation, deliver(conversation, message()), [])
            assert result.step == "connect"
            assert result.recipients[0].verdict == result.verdict
        conversation.quit()
        assert conversation.take_output() == b""  # Postfix just closes
    else:
        conversation.quit()
        assert conversation.take_output() == packet(b"Q")
    with pytest.raises(SessionOver):
        conversation.abort()


# -------------------------------------------------------------------------------------- macros


def macro(command, *strings):
    return packet(b"D", command, [each.encode() for each in strings])


def test_postfix_macros_step_by_step():
    conversation = negotiated(profile=POSTFIX, macros={"{auth_authen}": "ann", "{mine}": "1"})
    client = Client("h.example", "192.0.2.1", 99)
    connect = packet(b"C", b"h.example", b"4", 99, b"192.0.2.1")
    name = "mta.example.org"
    first = macro(b"C", "j", name, "{daemon_name}", name, "{daemon_addr}", "127.0.0.1",
                  "v", "Postfix 3.7.11", "_", "h.example [192.0.2.1]", "{mine}", "1")  # fmt: skip
    play(conversation, conversation.connect(client), [(first + connect, GO_ON)])
    play(conversation, conversation.helo("h"), [(macro(b"H") + packet(b"H", b"h"), GO_ON)])
    play(conversation, conversation.unknown("X"), [(macro(b"U") + packet(b"U", b"X"), GO_ON)])
    common = [
        "{auth_authen}",
        "ann",
        "{mail_addr}",
        "a@b",
        "{mail_host}",
        "b",
        "{mail_mailer}",
        "smtp",
    ]
    rcpt = ["{rcpt_addr}", "c@d", "{rcpt_host}", "d", "{rcpt_mailer}", "local"]
    for queue_id, extra in (("QUEUEID001", ["{xx}", "y"]), ("QUEUEID002", [])):
        i = ["i", queue_id]
        result = play(
            conversation,
            deliver(
                conversation,
                message(rcpts=["c@d", "c@d"], **dict(zip(extra[::2], extra[1::2], strict=True))),
            ),
            [
                (
                    (packet(b"A") if queue_id == "QUEUEID002" else b"")
                    + macro(b"M", *common, *extra)
                    + MAIL,
                    GO_ON,
                ),
                (macro(b"R", *rcpt) + RCPT, GO_ON),
                (macro(b"R", *i, *rcpt) + RCPT, GO_ON),
                (macro(b"T", *i) + DATA, GO_ON),
                (macro(b"L", *i) + HEADER, GO_ON),
                (macro(b"N", *i) + EOH, GO_ON),
                (macro(b"B", *i) + BODY, GO_ON),
                (macro(b"E", *i) + EOM, GO_ON),
            ],
        )
        assert result.verdict == "accepted"
    assert conversation.take_output() == packet(b"A")


def test_macro_lists_of_the_filter():
    lists = b"\0\0\0\x02{client_addr}, i {nope}\0" + b"\0\0\0\x03\0" + b"\0\0\0\x05j\0"
    conversation = negotiated(options(lists=lists, protocol=0x1B7), profile=POSTFIX)
    assert conversation.macros.lists == {
        "mail": ("{client_addr}", "i", "{nope}"), "rcpt": (), "eom": ("j",),
    }  # fmt: skip
    play(conversation, conversation.connect(Client()), [])
    conversation.take_output()  # macros only: NOCONNECT
    play(conversation, conversation.mail("a@b"), [])
    assert conversation.take_output() == macro(b"M", "{client_addr}", "127.0.0.1")
    steps = conversation.rcpt("c@d")
    rcpt = macro(b"R", "{rcpt_addr}", "c@d", "{rcpt_host}", "d", "{rcpt_mailer}", "local")
    play(conversation, steps, [(rcpt + RCPT, GO_ON)])
    play(conversation, conversation.header(b"A", b"1"), [])
    assert conversation.take_output() == b""
    play(conversation, conversation.eom(), [(macro(b"E", "j", "mta.example.org") + EOM, GO_ON)])


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("h[192.0.2.1]:25", (b"h", b"4", 25, b"192.0.2.1")),
        ("h[::1]", (b"h", b"6", 54321, b"::1")),
        ("m[IPv6:2001:db8::1]", (b"m", b"6", 54321, b"2001:db8::1")),
        ("[ipv6:2001:db8::1]:25", (b"[2001:db8::1]", b"6", 25, b"2001:db8::1")),
        ("IPv6:2001:db8::1", (b"[2001:db8::1]", b"6", 54321, b"2001:db8::1")),
        ("192.0.2.1", (b"[192.0.2.1]", b"4", 54321, b"192.0.2.1")),
        ("unknown[192.0.2.1]", (b"[192.0.2.1]", b"4", 54321, b"192.0.2.1")),
        ("localhost[/run/x]", (b"localhost", b"L", 0, b"/run/x")),
    ],
)
def test_clients(text, fields):
    assert Client.parse(text).fields == fields


def test_clients_that_are_none():
    assert Client("h", None).fields == (b"h", b"U")
    assert Client("", None).fields == (b"unknown", b"U")
    for text in ("", "some host", "h[1.2.3.4]:99999"):
        with pytest.raises(ValueError, match=r"no (client|port)"):
            Client.parse(text)


# ---------------------------------------------------------------------------------- on sockets


def test_messages_through_one_session(tmp_path):
    with FakeFilter(tmp_path / "s", {b"E": answer(b"hX\0v\0", b"c")}) as fake:
        with MTA(fake.spec, profile=QUIET) as mta:
            for content in (b"A: 1\n\nx\n", b"B: 2\r\n\r\ny\r\n"):
                assert mta.send(content, "a@b", ["c@d"]).changes == (AddHeader("X", "v"),)
            made = email.message.EmailMessage()
            made["Subject"] = "hello"
            made.set_content("text\n")
            assert b"Subject: hello\n" in mta.send(made).message
            (tmp_path / "m.eml").write_bytes(b"C: 3\n\n")
            assert mta.send(tmp_path / "m.eml").message == b"C: 3\nX: v\n\n"
            assert mta.send(str(tmp_path / "m.eml")).message == b"C: 3\nX: v\n\n"
        assert fake.seen.count(b"C") == fake.seen.count(b"Q") == 1
        with MTA(fake.spec) as mta:
            mta.send(b"\n", client="one[192.0.2.1]")
            mta.send(b"\n", client="two[192.0.2.1]")
            with pytest.raises(ValueError, match="needs a recipient"):
                mta.send(b"\n", rcpts=[], client="two[192.0.2.1]")
        assert fake.seen.count(b"C") == fake.seen.count(b"Q") == 3


def test_single_steps_and_vanishing(tmp_path):
    with FakeFilter(tmp_path / "s", {b"R": answer(b"r")}) as fake:
        session = MTA(fake.spec, profile=QUIET).session()
        assert session.mail("a@b").kind == "continue"
        assert session.rcpt("c@d", "NOTIFY=NEVER").refuses
        assert session.trace[-2:] == ["> RCPT <c@d> NOTIFY=NEVER", "< REJECT"]
        session.abort()
        assert session.negotiated == Offer(6, 0x1FF, 0)
        session.vanish()
        assert session.closed
        session.close()
        with pytest.raises(SessionOver):
            session.mail("a@b")
    assert fake.seen == [b"O", b"C", b"H", b"M", b"R", b"A", b"EOF"]


def test_raw_level(tmp_path):
    with FakeFilter(tmp_path / "s", {b"K": answer(b"t")}) as fake:
        session = MTA(fake.spec).open()
        session.send_packet(b"K")
        assert session.read_packet() == (b"t",)
        session.send_raw(packet(b"H", b"x"))
        assert session.read_packet() == (b"c",)
        session.send_packet(b"Q")
        with pytest.raises(FilterClosed):
            session.read_packet()
        assert session.closed


def test_what_is_left_over_shows_at_the_end(tmp_path):
    with FakeFilter(tmp_path / "s", {b"A": answer(b"c")}) as fake:
        mta = MTA(fake.spec)
        assert mta.send(b"\n").verdict == "accepted"
        with pytest.raises(ProtocolError, match="CONTINUE came unasked"):
            mta.close()
        mta.close()


def test_a_filter_that_closes(tmp_path):
    with FakeFilter(tmp_path / "s", {b"R": None}) as fake:
        mta = MTA(fake.spec)
        for _ in range(2):  # a new session each time
            with pytest.raises(FilterClosed, match="at rcpt: the filter closed"):
                mta.send(b"\n")
        mta.close()
    with FakeFilter(tmp_path / "s2", {b"O": None}) as fake, pytest.raises(FilterClosed):
        MTA(fake.spec).session()


def test_a_filter_that_is_silent(tmp_path):
    with (
        FakeFilter(tmp_path / "s", {b"R": b""}) as fake,
        MTA(fake.spec, timeout=0.05) as mta,
        pytest.raises(FilterTimeout, match=r"at rcpt: no answer within 0\.05 seconds"),
    ):
        mta.send(b"\n")


def test_a_held_session_ends_and_the_next_message_has_a_new_one(tmp_path):
    with FakeFilter(tmp_path / "s", {b"C": answer(b"y554 5.7.1 not you\0")}) as fake:
        with MTA(fake.spec, profile=QUIET) as mta:
            for _ in range(2):
                result = mta.send(b"\n")
                assert (result.step, result.code, result.enhanced) == ("connect", 554, None)
                assert result.text == "mta.example.org ESMTP not accepting connections"
        with MTA(fake.spec, profile=QUIET).session() as session:
            assert session.send(b"\n").verdict == session.send(b"\n").verdict == "rejected"
    assert fake.seen == [b"O", b"C", b"EOF"] * 3


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("unix:", "path is missing"),
        ("unix:/nonexistent/socket", "No such file"),
        ("/nonexistent/socket", "No such file"),
        ("unix:" + "x" * 200, "longer than 106 bytes"),
        ("inet:", "port is missing"),
        ("inet:@localhost", "port is missing"),
        ("x25:1", "socket type is unknown"),
        ("inet:nosuchservice@127.0.0.1", "no service of that name"),
        ("inet:25@[::1]", "not one of this family"),
        ("inet:25@no.such.host.invalid", "cannot connect"),
        ("fd:3", "cannot connect to fd:3: .* another program opened"),
    ],
)
def test_specs_that_lead_nowhere(spec, says):
    with pytest.raises(ConnectError, match=says):
        MTA(spec).open()


@pytest.mark.parametrize("form", ["inet:{}", "inet:{}@127.0.0.1", "inet:{}@[127.0.0.1]",
                                  "INET:{}:127.0.0.1", "inet:{}@localhost"])  # fmt: skip
def test_inet_specs(form):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        MTA(form.format(listener.getsockname()[1])).open().vanish()


def test_inet6_specs():
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as listener:
        port = listener.getsockname()[1]
        for form in ("inet6:{}", "inet6:{}@[::1]", "inet6:{}@[IPv6:::1]", "inet6:{}@::1"):
            MTA(form.format(port)).open().vanish()


def test_unknown_profile():
    with pytest.raises(ValueError, match="there are: postfix"):
        MTA("unix:x", profile="exim")


def test_control_characters_do_not_reach_the_terminal():
    conversation = negotiated()
    replies = answer(b"hX\0\x1b[31m\xff\0", b"c")
    result = play(conversation, deliver(conversation, message()), up_to("eom", replies))
    assert "+X: \\x1b[31m\\xff" in result.diff().split("\n")
    assert "< ADDHEADER X \\x1b[31m\\xff" in result.trace
