"""The messages of the `email` package's own tests."""

from __future__ import annotations

import sysconfig
from pathlib import Path


def email_messages() -> list[Path]:
    """Their files: of the interpreter that runs this, or of one of the system's, which may have its
    test suite in a package of its own. Empty if none has it."""
    own = Path(sysconfig.get_path("stdlib"))
    for folder in (own, *sorted(Path("/usr").glob("lib*/python3*"), reverse=True)):
        if found := sorted(folder.glob("test/test_email/data/msg_*.txt")):
            return found
    return []
