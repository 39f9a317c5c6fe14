"""The MTAs of tests/mta and what tests share, for the tests of programs."""

import sys
from pathlib import Path

TESTS = Path(__file__).parents[1]
sys.path += [str(TESTS), str(TESTS / "mta")]
