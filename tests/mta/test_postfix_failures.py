"""Filters that raise: the exception policy decides, the author is told, the filter serves on."""

from collections.abc import Iterator
from contextlib import closing

import pytest
from postfix import MESSAGE, Postfix, queue_id, wait_for
from running import Filter
from test_postfix_verdicts import NO_SERVICE, STEPS, TOLD_AT

TAGGED = b"\nX-Seen: yes\n"
TAG: list[list[object]] = [["addheader", "X-Seen", "yes"]]


@pytest.fixture(scope="module", params=["TEMPFAIL", "REJECT", "CONTINUE", "ACCEPT"])
def policed(
    request: pytest.FixtureRequest, postfix: Postfix, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, Filter]]:
    """An exception policy, and the scripted filter that has it."""
    folder = tmp_path_factory.mktemp("policed")
    with Filter("scripted.py", f"unix:{postfix.one}", folder, request.param) as it:
        yield request.param, it


@pytest.mark.parametrize("step", STEPS)
def test_exception(postfix: Postfix, policed: tuple[str, Filter], step: str) -> None:
    policy, it = policed
    text = f"deliberate at {step} under {policy}"
    it.plan({step: [["raise", text]], "eom": [["raise", text]] if step == "eom" else TAG})
    replies = postfix.session("unix", rcpts=["<one@local.test>"])

    if policy in ("CONTINUE", "ACCEPT"):
        delivered = postfix.delivered(queue_id(replies["."]), "one")
        assert (TAGGED in delivered) == (policy == "CONTINUE" and step != "eom")
    elif (policy, step) == ("REJECT", "connect"):
        assert replies["greeting"] == NO_SERVICE
    else:
        code, status = (451, "4.3.0 ") if policy == "TEMPFAIL" else (554, "5.3.0 ")
        reply = replies[TOLD_AT[step]]
        assert reply.code == code
        assert reply.text.startswith(status)
        assert "scripted" in reply.text
    # The author is told where.
    wait_for(text, lambda: text in it.stderr())
    assert "Traceback (most recent call last)" in it.stderr()


@pytest.mark.parametrize("step", ["abort", "close"])
def test_exception_when_nobody_waits(
    postfix: Postfix, policed: tuple[str, Filter], step: str
) -> None:
    policy, it = policed
    text = f"deliberate at {step} under {policy}"
    it.plan({f"{step} 1": [["raise", text]], "eom": TAG})
    with closing(postfix.client("unix")) as client:
        client.command("EHLO client.test")
        client.command("MAIL FROM:<sender@example.test>")
        client.command("RSET")
        replies = client.run(MESSAGE, "<sender@example.test>", ["<one@local.test>"])
        assert TAGGED in postfix.delivered(queue_id(replies["."]), "one")
    with closing(postfix.client("unix")) as client:
        client.command("EHLO client.test")
        client.command("MAIL FROM:<sender@example.test>")
    wait_for(text, lambda: text in it.stderr())
