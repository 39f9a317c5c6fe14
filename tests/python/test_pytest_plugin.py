"""The pytest plugin, in runs of pytest of its own; and unittest without it."""

import ast
import subprocess
import sys
from pathlib import Path

import Milter
import pytest
from Milter.testing import MTA
from Milter.testing.samples import SAMPLES

pytest_plugins = ["pytester"]

FILTER = """
import Milter
import pytest


class Tags(Milter.Base):
    def envrcpt(self, rcpt, *params):
        if rcpt == "<no@d>":
            self.setreply("550", "5.1.1", "nobody here")
            return Milter.REJECT
        return Milter.CONTINUE

    def eom(self):
        self.addheader("X-Tag", (self.getsymval("v") or "?").split()[0])
        return Milter.CONTINUE
"""
STRICT = """
[pytest]
addopts = --strict-markers --strict-config -p no:cacheprovider
filterwarnings = error
"""


@pytest.fixture
def run(pytester: pytest.Pytester):  # type: ignore[no-untyped-def]
    """Runs tests that are written for the filter above."""
    pytester.makeini(STRICT)

    def with_tests(tests: str, *arguments: str) -> pytest.RunResult:
        pytester.makepyfile(FILTER + tests)
        return pytester.runpytest_inprocess(*arguments)

    return with_tests


def test_a_filter_in_a_file(run, pytester: pytest.Pytester) -> None:  # type: ignore[no-untyped-def]
    """As `milterkit send --to` takes it, also beside the test's file; loaded once."""
    load = "import os\nos.mkdir('loaded')  # not twice\n"
    pytester.makepyfile(filter_in_file=load + FILTER)
    folder = pytester.mkdir("below")
    (folder / "other.py").write_text(FILTER)
    test = """
import pytest
@pytest.mark.milter(filter={!r})
@pytest.mark.parametrize("number", [1, 2])
def test_it(mta, number):
    assert mta.send(b"A: b\\n\\nhi\\n").changes
"""
    (folder / "test_below.py").write_text(test.format("other.py:Tags"))
    run(test.format("filter_in_file.py")).assert_outcomes(passed=4)
    assert Path("loaded").is_dir()
    wrong = run(test.format("missing.py"), "-k", "test_it", "--ignore", "below")
    wrong.stdout.fnmatch_lines(["*missing.py: no such file*"])


def test_the_fixture_and_its_markers(run) -> None:  # type: ignore[no-untyped-def]
    result = run("""
pytestmark = pytest.mark.milter(filter=Tags)

def test_it_tags(mta):
    assert b"X-Tag: Postfix" in mta.send(b"").message

@pytest.mark.milter(profile="sendmail")
class TestSendmail:
    def test_profile(self, mta):
        assert mta.profile.name == "sendmail"

    @pytest.mark.milter(hostname="mine")
    def test_both(self, mta):
        assert (mta.profile.name, mta.hostname) == ("sendmail", "mine")

@pytest.mark.milter(filter="unix:nothing")
def test_socket(mta):
    assert mta.target == "unix:nothing"
""")
    result.assert_outcomes(passed=4)


def test_samples(run) -> None:  # type: ignore[no-untyped-def]
    result = run("""
@pytest.mark.milter(filter=Tags)
def test_each(mta, sample_message):
    assert mta.send(sample_message).verdict == "accepted"

def test_all(sample_messages):
    assert sample_messages["empty"] == b""
""")
    result.assert_outcomes(passed=len(SAMPLES) + 1)


@pytest.mark.parametrize("marker", ["", "@pytest.mark.milter(profile='sendmail')\n",
                                    "@pytest.mark.milter()\n"])  # fmt: skip
def test_a_marker_without_a_filter(run, marker) -> None:  # type: ignore[no-untyped-def]
    result = run(f"{marker}def test_it(mta): pass")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*UsageError: *::test_it: *pytest.mark.milter*"])


def test_failures_show_the_session(run) -> None:  # type: ignore[no-untyped-def]
    result = run("""
@pytest.mark.milter(filter=Tags)
def test_it(mta):
    result = mta.send(b"Subject: hello\\n\\nhi\\n", rcpts=["a@d", "no@d"])
    assert result.verdict == "rejected"

@pytest.mark.milter(filter=Tags)
def test_unnamed(mta):
    assert mta.send(b"", rcpts="no@d").verdict == "accepted"

@pytest.mark.milter(filter=Tags)
def test_passes(mta):
    assert mta.send(b"").verdict == "accepted"
""")
    result.assert_outcomes(passed=1, failed=2)
    result.stdout.fnmatch_lines(
        [
            "*- milter session: result -*",
            "accepted",
            "  negotiate  version 6 * version 6, actions all",
            "  rcpt       <a@d> * continue",
            "  rcpt       <no@d> * 550 5.1.1 nobody here",
            "  eom * add header X-Tag: Postfix",
            "  +X-Tag: Postfix",
            "*- milter session -*",
            "rejected at rcpt: 550 5.1.1 nobody here",
        ]
    )
    assert result.stdout.str().count("- milter session") == 2


def test_errors_show_how_far_the_session_came(run) -> None:  # type: ignore[no-untyped-def]
    result = run("""
class Raises(Tags):
    def eom(self):
        raise ValueError("odd")

@pytest.mark.milter(filter=Raises)
def test_it(mta):
    mta.send(b"Subject: hello\\n\\nhi\\n")
""")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        ["*- milter session -*", "tempfailed: 451 4.3.0 *", "  rcpt *", "  eom *"]
    )


def test_steps_one_by_one_are_shown_too(run) -> None:  # type: ignore[no-untyped-def]
    result = run("""
@pytest.mark.milter(filter=Tags)
def test_it(mta):
    with mta.session() as session:
        session.mail("a@b")
        assert session.rcpt("no@d").kind == "continue"
""")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        ["*- milter session: session, without an outcome -*", "rcpt * 550 5.1.1 nobody here"]
    )


def test_unittest_under_pytest(run) -> None:  # type: ignore[no-untyped-def]
    result = run("""
import unittest
from Milter.testing import MTA

class TestTags(unittest.TestCase):
    def test_it(self):
        with MTA(Tags) as mta:
            result = mta.send(b"")
        self.assertEqual(result.verdict, "rejected")
""")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*- milter session: result -*", "  rcpt *"])


def test_unittest_alone(tmp_path: Path) -> None:
    """Without pytest, which is not even imported; a result as the message tells the session."""
    (tmp_path / "test_tags.py").write_text(
        FILTER.replace("import pytest\n", "import sys\nimport unittest\n")
        + """

class TestTags(unittest.TestCase):
    def test_it(self):
        from Milter.testing import MTA
        with MTA(Tags) as mta:
            result = mta.send(b"")
        self.assertNotIn("pytest", sys.modules)
        self.assertEqual(result.verdict, "rejected", result)
"""
    )
    done = subprocess.run(
        [sys.executable, "-m", "unittest"],
        cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "'rejected' : accepted\n" in done.stderr
    assert "  eom  " in done.stderr


def test_only_the_plugin_imports_pytest() -> None:
    package = Path(Milter.__file__).parent
    importers = set()
    for file in package.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                names = [each.name for each in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            else:
                continue
            if any(name.partition(".")[0] in ("pytest", "_pytest") for name in names):
                importers.add(file.name)
    assert importers == {"pytest_plugin.py"}


class Nothing(Milter.Base):
    """Sees every sample."""

    def eom(self) -> int:
        return Milter.CONTINUE


@pytest.mark.parametrize("profile", ["postfix", "sendmail"])
def test_samples_pass_through_both_profiles(profile: str) -> None:
    refused = {"sendmail": {"bare cr", "long header"}, "postfix": set()}[profile]
    with MTA(Nothing, profile=profile) as mta:
        verdicts = {name: mta.send(message).verdict for name, message in SAMPLES.items()}
    assert {name for name, verdict in verdicts.items() if verdict != "accepted"} == refused
