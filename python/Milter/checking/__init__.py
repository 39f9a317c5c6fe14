"""What can be told of a filter without running it: what it negotiates, likely mistakes, and the
lines of an MTA's configuration that are for it. `milterkit check` prints it.
"""

from Milter.checking.checks import CHECKS, findings
from Milter.checking.finding import Finding
from Milter.checking.negotiation import negotiation
from Milter.checking.settings import settings
from Milter.checking.subject import Subject, subject_of

__all__ = [
    "CHECKS",
    "Finding",
    "Subject",
    "findings",
    "negotiation",
    "settings",
    "subject_of",
]
