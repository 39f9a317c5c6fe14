"""All that may be done with a message, by name: for the tests and for tests/fuzz/fuzz_mime.py."""

from __future__ import annotations

import copy
import email.generator
import email.iterators
import io
from collections.abc import Callable
from typing import Any

import mime


def with_parts(change: Callable[[Any], object]) -> Callable[[Any], object]:
    """A change of each part, and what is written then."""

    def use(message: Any) -> bytes:
        for part in list(message.walk()):
            change(part)
        return bytes(message.as_bytes())

    return use


def leaf(change: Callable[[Any], object]) -> Callable[[Any], object]:
    """A change of each part that holds no others."""
    return with_parts(lambda part: None if part.is_multipart() else change(part))


def asked(part: Any) -> None:
    """All that may be asked of a part."""
    for ask in (
        *(part.keys, part.values, part.items, part.raw_items, part.__len__, part.is_multipart),
        *(part.get_content_type, part.get_content_maintype, part.get_content_subtype),
        *(part.get_content_disposition, part.get_default_type, part.get_unixfrom),
        *(part.get_filename, part.get_boundary, part.get_content_charset, part.get_charsets),
        *(part.get_params, part.getname, part.gettype, part.getencoding, part.ismodified),
        *(part.get_payload, part.get_payload_decoded, part.get_submsg, part.getnames),
        *(part.get_payload_source, part.as_bytes, part.as_string, part.__str__, part.__repr__),
        *(part.__bytes__, part.__iter__, part.get_charset, part.header_is_modified),
    ):
        ask()
    part.get_payload(decode=True)
    part.get_all("x"), part.getheaders("content-type"), "x" in part, part.get("subject")
    part.decode(io.BytesIO())
    part.dump(io.BytesIO(), unixfrom=True)
    part.get_param("name", unquote=False)


OPERATIONS: dict[str, Callable[[Any], object]] = {
    "questions": lambda it: [asked(part) for part in it.walk()],
    "copy": lambda it: copy.copy(it).as_bytes(),
    "defang": lambda it: (mime.defang(it, scan_zip=True), it.as_bytes(), it.as_string()),
    "defang, not messages inside": lambda it: (mime.defang(it, scan_rfc822=False), it.as_bytes()),
    "check_attachments": lambda it: mime.check_attachments(it, mime.check_html),
    "as_bytes(policy)": lambda it: it.as_bytes(policy=it.policy),
    "body_line_iterator": lambda it: list(email.iterators.body_line_iterator(it)),
    "typed_subpart_iterator": lambda it: list(email.iterators.typed_subpart_iterator(it)),
    "_structure": lambda it: email.iterators._structure(it, io.StringIO()),
    "MimeGenerator": lambda it: mime.MimeGenerator(io.BytesIO()).flatten(it, linesep="\r\n"),
    "BytesGenerator": lambda it: email.generator.BytesGenerator(io.BytesIO()).flatten(it),
    "attach": lambda it: (not it.is_multipart() or it.attach(mime.MimeMessage()), it.as_bytes()),
    "set_unixfrom": lambda it: (it.set_unixfrom("From x"), it.as_bytes(unixfrom=True)),
    "set_param": with_parts(
        lambda part: (
            part.set_param("a", "b"),
            part.set_param("name", "\u20ac", charset="utf-8"),
            part.set_param("boundary", part.get_param("name")),
            part.set_param("charset", "x", replace=True),
        )
    ),
    "del_param": with_parts(lambda part: [part.del_param(it) for it in ("charset", "boundary")]),
    "set_type": leaf(lambda part: part.set_type("text/html")),
    "set_type of what holds parts": with_parts(lambda part: part.set_type("a/b")),
    "set_boundary": with_parts(
        lambda part: part.set_boundary("new") if "content-type" in part else None
    ),
    "set_charset": leaf(lambda part: part.set_charset("utf-8")),
    "set_charset(None)": with_parts(lambda part: part.set_charset(None)),
    "set_payload": leaf(lambda part: part.set_payload("x\u20ac\r\n.")),
    "add_header": with_parts(lambda part: part.add_header("X", "y", name="\u20ac")),
    "replace_header": with_parts(
        lambda part: part.keys() and part.replace_header(part.keys()[0], "y")
    ),
    "delete": with_parts(lambda part: [part.__delitem__(name) for name in set(part.keys())]),
    "set again": with_parts(
        lambda part: [part.__setitem__(name, value) for name, value in part.items()]
    ),
}

# What takes its type from what holds parts is the program's mistake, and raises later.
IN_TURN = sorted({*OPERATIONS} - {"set_type of what holds parts", "delete", "replace_header"})
