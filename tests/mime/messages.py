"""What the tests of `mime` have in common: the `email` package's own messages, and short hands."""

from __future__ import annotations

import io
from typing import Any

import mime
from shared.email_messages import email_messages


def corpus() -> dict[str, bytes]:
    """The messages of the `email` package's own tests, by name."""
    found = email_messages()
    assert len(found) > 40
    return {path.name: path.read_bytes() for path in found}


def read(data: bytes) -> mime.MimeMessage:
    """The message in some bytes."""
    return mime.message_from_file(io.BytesIO(data))


def tree(message: Any) -> Any:
    """What `email` and we should agree on: type, preamble, epilogue, headers, and the same of the
    parts, or the payload."""
    payload = message.get_payload()
    return {
        "type": message.get_content_type(),
        "preamble": message.preamble,
        "epilogue": message.epilogue,
        "headers": [(name, str(value)) for name, value in message.items()],
        "payload": [tree(part) for part in payload] if isinstance(payload, list) else payload,
    }


def filtered(text: str) -> str:
    """HTML without its scripts."""
    out = io.StringIO()
    script_filter = mime.HTMLScriptFilter(out)
    script_filter.feed(text)
    script_filter.close()
    return out.getvalue()
