"""docs/testing.md tries opendkim: what its commands print."""

import re
import subprocess
import sys
import time
from pathlib import Path

from in_c import PROGRAMS

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "tests/python"))

from page import Page  # noqa: E402


def test_opendkim_as_the_page_tries_it(tmp_path: Path) -> None:
    text = (ROOT / "docs/testing.md").read_text()
    part = text[text.index("## Try a filter that is not in Python") :].split("\n## ")[0]
    setup = re.findall(r"```sh\n(.*?)```", part, re.DOTALL)[0]
    *before, serve = setup.rstrip().splitlines()
    subprocess.run(["sh", "-ec", "\n".join(before)], cwd=tmp_path, check=True, timeout=60)
    program = next(each for each in PROGRAMS if each.name == "opendkim")
    name, *arguments = serve.split()
    assert name == program.name
    process = subprocess.Popen([program.path, *arguments], cwd=tmp_path)
    try:
        end = time.monotonic() + 30
        while not (tmp_path / "opendkim.sock").exists():
            assert process.poll() is None
            assert time.monotonic() < end
            time.sleep(0.05)
        assert Page(part, tmp_path).run() == []
    finally:
        process.terminate()
        process.wait(30)
