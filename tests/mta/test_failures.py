"""Filters that raise: the exception policy decides, the author is told, the filter serves on."""

from collections.abc import Iterator
from contextlib import closing

import differences
import pytest
from differences import STEPS, TOLD_AT
from mta import Mta, wait_for
from running import Filter

TAGGED = "X-Seen: yes"
TAG: list[list[object]] = [["addheader", "X-Seen", "yes"]]


@pytest.fixture(scope="module", params=["TEMPFAIL", "REJECT", "CONTINUE", "ACCEPT"])
def policed(
    request: pytest.FixtureRequest, mta: Mta, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, Filter]]:
    """An exception policy, and the scripted filter that has it."""
    folder = tmp_path_factory.mktemp("policed")
    with Filter("scripted.py", f"unix:{mta.one}", folder, request.param) as it:
        yield request.param, it


@pytest.mark.parametrize("step", STEPS)
def test_exception(mta: Mta, policed: tuple[str, Filter], step: str) -> None:
    policy, it = policed
    text = f"deliberate at {step} under {policy}"
    it.plan({step: [["raise", text]], "eom": [["raise", text]] if step == "eom" else TAG})
    replies = mta.session("unix", rcpts=["<one@local.test>"])

    if policy in ("CONTINUE", "ACCEPT"):
        delivered = mta.delivered(mta.queue_id(replies["."])).headers
        assert (TAGGED in delivered) == (policy == "CONTINUE" and step != "eom")
    elif (policy, step) == ("REJECT", "connect"):
        assert replies["greeting"] == differences.of(mta, "greeting")
    else:
        code, status = (451, "4.3.0 ") if policy == "TEMPFAIL" else (554, "5.3.0 ")
        reply = replies[TOLD_AT[step]]
        if step == "connect" and not differences.of(mta, "text at connect"):
            assert reply == differences.refusal(mta, "TEMPFAIL", step)
        else:
            assert reply.code == code
            assert reply.text.startswith(status)
            assert "scripted" in reply.text
    # The author is told where.
    wait_for(text, lambda: text in it.stderr())
    assert "Traceback (most recent call last)" in it.stderr()


@pytest.mark.parametrize("step", ["abort", "close"])
def test_exception_when_nobody_waits(mta: Mta, policed: tuple[str, Filter], step: str) -> None:
    policy, it = policed
    text = f"deliberate at {step} under {policy}"
    it.plan({f"{step} 1": [["raise", text]], "eom": TAG})
    with closing(mta.client("unix")) as client:
        client.command("EHLO client.test")
        client.command("MAIL FROM:<sender@example.test>")
        client.command("RSET")
        replies = client.run()
        assert TAGGED in mta.delivered(mta.queue_id(replies["."])).headers
    with closing(mta.client("unix")) as client:
        client.command("EHLO client.test")
        client.command("MAIL FROM:<sender@example.test>")
    wait_for(text, lambda: text in it.stderr())
