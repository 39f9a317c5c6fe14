"""The MTAs of tests/mta for the tests of programs."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "mta"))
