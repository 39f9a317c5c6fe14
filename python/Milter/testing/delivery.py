"""A whole message through a conversation: the steps in order, and what becomes of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from Milter.testing.changes import Quarantine
from Milter.testing.client import Auth
from Milter.testing.conversation import Conversation
from Milter.testing.draft import Draft
from Milter.testing.result import RecipientResult, Result, Verdict
from Milter.testing.steps import GO_ON, Answer, Message, Need, Steps
from Milter.testing.text import bare
from Milter.testing.trace import Trace

__all__ = ["deliver"]

_MUCH = 1 << 18  # bytes of output that may gather
_VERDICTS = {
    "continue": Verdict.ACCEPTED,
    "accept": Verdict.ACCEPTED,
    "reject": Verdict.REJECTED,
    "tempfail": Verdict.TEMPFAILED,
    "discard": Verdict.DISCARDED,
    "quarantine": Verdict.QUARANTINED,
}


def deliver(
    conversation: Conversation,
    message: Message,
    *,
    auth: Auth | None = None,
    time_out_at: str | None = None,
) -> Steps[Result]:
    """Sends a whole message as far as the filter lets it, and says what became of it.

    time_out_at: a step at which the filter's answer is not waited for; the MTA then does what it
    does when it waited too long.
    """
    draft = conversation.profile.draft(
        message.content, message.envelope, leading_space=conversation.leading_space
    )
    if unasked := conversation.answer_unasked(message.sender[0]):
        step, answer = unasked
        conversation.changes = []
        return _result(conversation, draft, step, answer, [])
    conversation.check_open()
    recipients: list[RecipientResult] = []
    conversation.time_out_at = time_out_at
    with conversation.macros.more(message.macros):
        answer = yield from _transaction(conversation, message, draft, recipients, auth)
    conversation.time_out_at = None
    step = conversation.step
    conversation.end_message(answer)
    return _result(conversation, draft, step, answer, recipients)


def _transaction(
    conversation: Conversation,
    message: Message,
    draft: Draft,
    recipients: list[RecipientResult],
    auth: Auth | None,
) -> Steps[Answer]:
    answer = yield from conversation.mail(*message.sender, auth=auth)
    if answer.final:
        return answer
    answer = yield from _recipients(conversation, message, recipients)
    if answer.final:
        return answer
    answer = yield from conversation.data()
    if answer.final:
        return answer
    if refusal := draft.refusal():
        conversation.step = "mta"
        if refusal.code == 421:
            conversation.drop()
        return Answer("reject" if refusal.code >= 500 else "tempfail", refusal)
    conversation.know_message(draft)
    for step in _content(conversation, draft):
        answer = yield from step
        if answer.final:
            return answer
        if len(conversation.output) > _MUCH:
            yield Need.ROOM
    return answer


def _recipients(
    conversation: Conversation, message: Message, recipients: list[RecipientResult]
) -> Steps[Answer]:
    """All RCPT commands. A refusal is for that one, unless none is left; ACCEPT and DISCARD
    are for the message, and so is what the MTA does once it gave up on the filter."""
    decided = GO_ON
    for rcpt in message.rcpts:
        answer = decided
        if not decided.final:
            answer = yield from conversation.rcpt(*rcpt)
            if conversation.held or answer.hangs_up or (answer.final and not answer.refuses):
                decided = answer
        verdict = _VERDICTS[answer.kind] if answer.refuses else Verdict.ACCEPTED
        recipients.append(RecipientResult(bare(rcpt[0]), verdict, answer.reply))
    if decided.final or any(each.verdict.queued for each in recipients):
        return decided
    last = recipients[-1]
    temporary = [each for each in recipients if each.verdict is Verdict.TEMPFAILED]
    if temporary:
        return Answer("tempfail", temporary[-1].reply)
    return Answer("reject", last.reply)


def _content(conversation: Conversation, draft: Draft) -> Iterator[Steps[Answer]]:
    for name, value in draft.wire_headers():
        yield conversation.header(name, value)
    yield conversation.eoh()
    for chunk in draft.wire_body(conversation.profile.chunk):
        yield conversation.body(chunk)
    yield conversation.eom()


def _result(
    conversation: Conversation,
    draft: Draft,
    step: str,
    answer: Answer,
    recipients: Sequence[RecipientResult],
) -> Result:
    verdict = _VERDICTS[answer.kind]
    changes = tuple(conversation.changes) if step == "eom" else ()
    if verdict is Verdict.ACCEPTED and any(isinstance(each, Quarantine) for each in changes):
        verdict = Verdict.QUARANTINED
    # Recipients that were not refused, or not even asked about, share the message's fate.
    refused = {each.address: each for each in recipients if not each.verdict.queued}
    known = tuple(
        refused.get(rcpt, RecipientResult(rcpt, verdict, answer.reply)) for rcpt in draft.rcpts
    )
    trace, conversation.trace = conversation.trace, Trace()
    errors, conversation.errors = tuple(conversation.errors), []
    passed = None
    if conversation.bytes is not None:
        passed = tuple(conversation.bytes)
        conversation.bytes.clear()
    return Result(verdict, step, answer.reply, known, changes, errors, draft, trace, passed)
