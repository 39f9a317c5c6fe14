"""examples/smallest.py."""

import pytest
from Milter.testing import MTA, AddHeader
from smallest import Smallest

pytestmark = pytest.mark.milter(filter=Smallest)


def test_each_message_is_marked(mta: MTA, sample_message: bytes) -> None:
    assert mta.send(sample_message).changes == (AddHeader("X-Filtered", "yes"),)
