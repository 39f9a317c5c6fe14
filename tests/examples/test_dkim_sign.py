"""examples/dkim_sign.py. Behind a real Postfix: tests/mta/test_examples.py."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import dkim
import pytest
from Milter.testing import MTA, InsertHeader
from Milter.testing.samples import SAMPLES
from shared.keys import is_signed, rsa_key

from .hostile import HOSTILE

NAME = "mail._domainkey.example.org"
FROM = b"From: Ann <ann@Example.org>\n"
MESSAGE = FROM + b"Subject:  two spaces,\n\ta fold \nX-Empty:\nTo:b@c.example\n\nhi \n\n.\nho\n\n\n"
OUTSIDE = "mail.example.net[192.0.2.7]"


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The file of a key, and its DNS record."""
    file = tmp_path_factory.mktemp("key") / "key.pem"
    return file, rsa_key(file)


@pytest.fixture(scope="module")
def record(key: tuple[Path, str]) -> str:
    """The key's DNS record."""
    return key[1]


@pytest.fixture(scope="module")
def example(key: tuple[Path, str]) -> Iterator[ModuleType]:
    """The example with this key."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DKIM_KEY", str(key[0]))
        patch.delitem(sys.modules, "dkim_sign", raising=False)
        yield importlib.import_module("dkim_sign")


@pytest.fixture
def mta(example: ModuleType) -> Iterator[MTA]:
    with MTA(example.DkimSign) as mta:
        yield mta


@pytest.mark.parametrize("canonicalize", ["simple/simple", "relaxed/simple", "relaxed/relaxed"])
@pytest.mark.parametrize("mta_is", [("postfix", 6), ("sendmail", 6), ("postfix", 2)])
def test_signatures_hold(
    example: ModuleType, record: str, canonicalize: str, mta_is: tuple[str, int]
) -> None:
    profile, version = mta_is
    # Without HDR_LEADSPC, which came with version 6, white space in front cannot be known.
    message = MESSAGE if version == 6 else MESSAGE.replace(b"To:", b"To: ")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(example, "CANONICALIZE", tuple(canonicalize.encode().split(b"/")))
        with MTA(example.DkimSign, profile=profile, version=version) as mta:
            result = mta.send(message, "ann@example.org")
    [change] = result.changes
    assert isinstance(change, InsertHeader)
    assert (change.index, change.name) == (0, "DKIM-Signature")
    assert result.message.startswith(b"DKIM-Signature: v=1; a=rsa-sha256; c=")
    assert result.message.endswith(message)
    assert is_signed(result.message, NAME, record)
    assert not_signed_when_changed(result.message, record)


def not_signed_when_changed(message: bytes, record: str) -> bool:
    """Whether changes break a signature: the test's own test."""
    changed = (message.replace(b"hi", b"ho"), b"From: eve@evil.example\n" + message)
    for each in changed:
        try:
            if is_signed(each, NAME, record):
                return False
        except dkim.ValidationError:
            pass
    return True


@pytest.mark.parametrize(
    ("client", "auth", "signs"),
    [
        ("127.0.0.1", None, True),
        ("::1", None, True),
        ("192.168.7.7", None, True),
        (OUTSIDE, "ann", True),
        (OUTSIDE, None, False),
        ("2001:db8::1", None, False),
        ("/a/path", None, False),
    ],
)
def test_whose_mail_is_signed(mta: MTA, client: str, auth: str | None, signs: bool) -> None:
    assert bool(mta.send(MESSAGE, client=client, auth=auth).changes) == signs


@pytest.mark.parametrize(
    "authors",
    [
        b"",
        b"From: eve@elsewhere.example\n",
        b"From: ann@example.org.elsewhere.example\n",
        b"From: ann@example.org\nfrom: eve@elsewhere.example\n",
        b"From: ann@example.org\n" * 2,
        b"From: ann@example.org, eve@elsewhere.example\n",
        b"From: Ann <ann@example.org>, eve@elsewhere.example\n",
        b"From: ann@example.org)eve@elsewhere.example\n",
        b"From: \xff\n",
    ],
)
def test_other_authors_are_not_vouched_for(mta: MTA, authors: bytes) -> None:
    assert mta.send(authors + b"Subject: hello\n\nhi\n").changes == ()


def test_messages_of_one_connection(mta: MTA, record: str) -> None:
    with mta.session() as session:
        for number in range(2):
            message = session.send(MESSAGE + b"%d\n" % number).message
            assert message is not None
            assert is_signed(message, NAME, record)


@pytest.mark.parametrize("name", SAMPLES)
def test_any_message(mta: MTA, record: str, name: str) -> None:
    """What the MTA will send is what is signed, whatever it is."""
    result = mta.send(FROM + SAMPLES[name].partition(b"\n")[2] if SAMPLES[name] else FROM)
    assert len(result.changes) == 1
    assert result.message is not None
    assert is_signed(result.message, NAME, record)


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile(mta: MTA, record: str, name: str) -> None:
    result = mta.send(HOSTILE[name])
    assert result.verdict == "accepted"
    assert result.message is not None
    if result.changes:
        assert is_signed(result.message, NAME, record)
