"""`milterkit`, also `python -m Milter`: runs filters and sends messages to them."""

from __future__ import annotations

import sys

from Milter.cli import main

if __name__ == "__main__":
    sys.exit(main())
