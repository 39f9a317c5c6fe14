"""What the tests of `mime` have in common: the `email` package's own messages, and short hands."""

from __future__ import annotations

import io
import re
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

import mime


def corpus() -> dict[str, bytes]:
    """The messages of the `email` package's own tests, by name: from the interpreter that runs
    this, or from the distribution's package of the standard library's test suite."""
    own = Path(sysconfig.get_path("stdlib")).glob("test/test_email/data/msg_*.txt")
    if not (found := list(own)):
        installed = subprocess.run(
            ["sh", "-c", "dpkg-query -L 'libpython3*-testsuite'"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.splitlines()
        found = [Path(name) for name in installed if re.search(r"/data/msg_\w+\.txt$", name)]
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
