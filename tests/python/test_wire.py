"""Milter._wire: bytes of every packet, both directions, and what it refuses."""

import pytest
from Milter import _wire
from Milter._wire import TO_FILTER, TO_MTA, Decoder, PacketError, encode

# (direction, bytes after the length, command, fields): at least one for each packet there is.
PACKETS = [
    (TO_FILTER, b"O\0\0\0\x06\0\0\x01\xff\0\x1f\xff\xff", b"O", (6, 0x1FF, 0x1FFFFF)),
    (TO_FILTER, b"Clocalhost\0004\x04\xd2127.0.0.1\0", b"C",
     (b"localhost", b"4", 1234, b"127.0.0.1")),
    (TO_FILTER, b"Ch\0006\0\x19::1\0", b"C", (b"h", b"6", 25, b"::1")),
    (TO_FILTER, b"Ch\0L\0\0/run/x\0", b"C", (b"h", b"L", 0, b"/run/x")),
    (TO_FILTER, b"Chost\0U", b"C", (b"host", b"U")),
    (TO_FILTER, b"DMi\0Q1\0", b"D", (b"M", b"i\0Q1\0")),
    (TO_FILTER, b"DH", b"D", (b"H", b"")),
    (TO_FILTER, b"Hme\0", b"H", (b"me",)),
    (TO_FILTER, b"H\0", b"H", (b"",)),
    (TO_FILTER, b"M<a@b>\0", b"M", ((b"<a@b>",),)),
    (TO_FILTER, b"M<a>\0\0B=8\0", b"M", ((b"<a>", b"", b"B=8"),)),
    (TO_FILTER, b"R<c@d>\0NOTIFY=NEVER\0", b"R", ((b"<c@d>", b"NOTIFY=NEVER"),)),
    (TO_FILTER, b"T", b"T", ()),
    (TO_FILTER, b"LSubject\0hi\n \xff\0", b"L", (b"Subject", b"hi\n \xff")),
    (TO_FILTER, b"N", b"N", ()),
    (TO_FILTER, b"Bbody\0\r\n", b"B", (b"body\0\r\n",)),
    (TO_FILTER, b"E", b"E", (b"",)),
    (TO_FILTER, b"Elast", b"E", (b"last",)),
    (TO_FILTER, b"UFOO\0", b"U", (b"FOO",)),
    (TO_FILTER, b"A", b"A", ()),
    (TO_FILTER, b"Q", b"Q", ()),
    (TO_FILTER, b"K", b"K", ()),
    (TO_MTA, b"O\0\0\0\x06\0\0\x01\xff\0\0\x04\0", b"O", (6, 0x1FF, 0x400)),
    (TO_MTA, b"O\0\0\0\x06\0\0\x01\xff\0\0\x04\0\0\0\0\0j {x}\0\0\0\0\x05\0\0\0\0\x06i\0", b"O",
     (6, 0x1FF, 0x400, 0, b"j {x}", 5, b"", 6, b"i")),
    (TO_MTA, b"+<a@b>\0", b"+", (b"<a@b>",)),
    (TO_MTA, b"-<a@b>\0", b"-", (b"<a@b>",)),
    (TO_MTA, b"2<a@b>\0", b"2", (b"<a@b>",)),
    (TO_MTA, b"2<a@b>\0NOTIFY=NEVER\0", b"2", (b"<a@b>", b"NOTIFY=NEVER")),
    (TO_MTA, b"e<x@y>\0RET=HDRS\0", b"e", (b"<x@y>", b"RET=HDRS")),
    (TO_MTA, b"b", b"b", (b"",)),
    (TO_MTA, b"bx\0y", b"b", (b"x\0y",)),
    (TO_MTA, b"hX\0v\0", b"h", (b"X", b"v")),
    (TO_MTA, b"i\0\0\0\0X\0 v\0", b"i", (0, b"X", b" v")),
    (TO_MTA, b"m\0\0\0\x02X\0\0", b"m", (2, b"X", b"")),
    (TO_MTA, b"qwhy\0", b"q", (b"why",)),
    (TO_MTA, b"y550 5.7.1 no way\0", b"y", (b"550 5.7.1 no way",)),
    (TO_MTA, b"lanything", b"l", (b"anything",)),
    *((TO_MTA, bytes([code]), bytes([code]), ()) for code in b"4acdfprst"),
]  # fmt: skip


def framed(packet: bytes) -> bytes:
    return len(packet).to_bytes(4, "big") + packet


@pytest.mark.parametrize(("direction", "data", "command", "fields"), PACKETS)
def test_packet_both_ways(direction, data, command, fields):
    assert encode(direction, command, *fields) == framed(data)
    decoder = Decoder(direction)
    decoder.feed(framed(data))
    assert decoder.next() == (command, *fields)
    assert decoder.next() is None
    assert decoder.pending == 0


def test_there_is_a_case_for_every_packet():
    for direction, kinds in ((TO_FILTER, _wire.COMMANDS), (TO_MTA, _wire.REPLIES)):
        tried = {command for way, _, command, _ in PACKETS if way == direction}
        assert tried == set(kinds)


@pytest.mark.parametrize("direction", [TO_FILTER, TO_MTA])
def test_stream_byte_by_byte(direction):
    mine = [case for case in PACKETS if case[0] == direction]
    decoder = Decoder(direction)
    found = []
    for byte in b"".join(framed(data) for _, data, _, _ in mine):
        decoder.feed(bytes([byte]))
        packet = decoder.next()
        if packet:
            found.append(packet)
    assert found == [(command, *fields) for _, _, command, fields in mine]


def test_lists_of_strings_make_macros():
    assert encode(TO_FILTER, b"D", b"M", [b"i", b"Q1"]) == framed(b"DMi\0Q1\0")
    assert encode(TO_FILTER, b"D", b"M", []) == framed(b"DM")


@pytest.mark.parametrize(
    ("direction", "data", "says"),
    [
        (TO_FILTER, framed(b""), "length 0"),
        (TO_FILTER, framed(b"Z"), "'Z': there is no such packet"),
        (TO_FILTER, framed(b"\x01"), "0x01: there is no such packet"),
        (TO_FILTER, framed(b"O\0\0\0\x06"), "OPTNEG: it is too short"),
        (TO_FILTER, framed(b"H"), "HELO: it is too short"),
        (TO_FILTER, framed(b"Habc"), "HELO: a string in it is not terminated"),
        (TO_FILTER, framed(b"Labc\0"), "HEADER: it is too short"),
        (TO_FILTER, framed(b"B"), "BODY: it is empty"),
        (TO_FILTER, framed(b"Mabc"), "MAIL: a string in it is not terminated"),
        (TO_FILTER, framed(b"Ch\0004\0\x19"), "CONNECT: it is too short"),
        (TO_MTA, framed(b"cx"), "CONTINUE: it has data left over"),
        (TO_MTA, framed(b"hX\0v\0w\0"), "ADDHEADER: it has data left over"),
        (TO_MTA, framed(b"y550 no"), "REPLYCODE: a string in it is not terminated"),
        (TO_MTA, framed(b"m\0\0\0"), "CHGHEADER: it is too short"),
    ],
)
def test_malformed_packets_are_named(direction, data, says):
    decoder = Decoder(direction)
    decoder.feed(data)
    with pytest.raises(PacketError) as caught:
        decoder.next()
    assert says in str(caught.value)


def test_a_malformed_packet_is_skipped_but_a_wrong_length_stays():
    decoder = Decoder(TO_FILTER, limit=10)
    decoder.feed(framed(b"Habc") + framed(b"N") + framed(b"B" + b"x" * 11))
    with pytest.raises(PacketError, match="HELO"):
        decoder.next()
    assert decoder.next() == (b"N",)
    for _ in range(2):
        with pytest.raises(PacketError, match="BODY: 11 bytes of data are more than the limit"):
            decoder.next()
    decoder.limit = 11
    assert decoder.next() == (b"B", b"x" * 11)


def test_a_huge_length_is_refused_before_its_data_comes():
    decoder = Decoder(TO_FILTER)
    decoder.feed(b"GET / HTTP/1.1\r\n")
    with pytest.raises(PacketError, match="1195725855 bytes of data"):
        decoder.next()


def test_limit_is_checked():
    assert Decoder(TO_MTA).limit == 1 << 20
    decoder = Decoder(TO_MTA, limit=0)
    decoder.feed(framed(b"c"))
    assert decoder.next() == (b"c",)
    for wrong, error in ((-1, ValueError), ("x", TypeError), (1 << 80, OverflowError)):
        with pytest.raises(error):
            decoder.limit = wrong
    with pytest.raises(ValueError, match="negative"):
        Decoder(TO_MTA, -1)
    with pytest.raises(ValueError, match="direction"):
        Decoder(2)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ((), TypeError),
        ((TO_FILTER,), TypeError),
        ((7, b"N"), ValueError),
        ((TO_FILTER, "N"), TypeError),
        ((TO_FILTER, b"NN"), TypeError),
        ((TO_FILTER, b"Z"), PacketError),
        ((TO_FILTER, b"N", b"x"), PacketError),
        ((TO_FILTER, b"L", b"name"), PacketError),
        ((TO_FILTER, b"H", "text"), TypeError),
        ((TO_FILTER, b"H", [b"text"]), TypeError),
        ((TO_FILTER, b"H", b"a\0b"), ValueError),
        ((TO_FILTER, b"M", b"<a@b>"), TypeError),
        ((TO_FILTER, b"M", []), ValueError),
        ((TO_FILTER, b"M", ["text"]), TypeError),
        ((TO_FILTER, b"M", [b"a\0b"]), ValueError),
        ((TO_FILTER, b"B", b""), ValueError),
        ((TO_FILTER, b"O", 6, 0, 1 << 32), OverflowError),
        ((TO_FILTER, b"O", 6, 0, -1), OverflowError),
        ((TO_FILTER, b"O", 6, 0, b"x"), TypeError),
        ((TO_FILTER, b"C", b"h", b"4", 65536, b"1.2.3.4"), OverflowError),
        ((TO_FILTER, b"C", b"h", b"44", 1, b"1.2.3.4"), TypeError),
        ((TO_MTA, b"O", 6, *range(40)), PacketError),
    ],
)
def test_encode_refuses(arguments, error):
    with pytest.raises(error):
        encode(*arguments)


def test_names_of_flags():
    assert _wire.ACTIONS["SETSYMLIST"] == 0x100
    assert sum(_wire.ACTIONS.values()) == _wire.ALL_ACTIONS
    assert _wire.PROTOCOL["HDR_LEADSPC"] == 0x100000
    assert sum(_wire.PROTOCOL.values()) == _wire.ALL_PROTOCOL
    assert _wire.COMMANDS[b"M"] == ("MAIL", "a")
    assert _wire.REPLIES[b"y"] == ("REPLYCODE", "z")


def test_feed_takes_any_buffer():
    decoder = Decoder(TO_MTA)
    decoder.feed(bytearray(framed(b"c")))
    decoder.feed(memoryview(framed(b"a")))
    assert [decoder.next(), decoder.next(), decoder.next()] == [(b"c",), (b"a",), None]
    with pytest.raises(TypeError):
        decoder.feed("text")
