"""Marks mail from outside: a tag in front of its subject, and a header for the rules of readers."""

import re

import Milter
from Milter.utils import parse_header

TAG = "[external]"  # in ASCII
HEADER = "X-External"

# What a header that is sent back may not have in it, though hostile ones do: an MTA could take a
# lone CR as the end of the line.
CLEAN = str.maketrans("\0\r", "  ")
# Nor a line of white space alone: it could be taken for the end of the headers.
BLANK_LINE = re.compile(r"\n[ \t]*(?=\n|\Z)")


class TagHeader(Milter.Base):
    def envfrom(self, sender, *params):
        # One object serves all messages of a connection: what belongs to one begins here.
        self.subjects = []
        self.marks = 0
        # Those who have logged in are our own people: no more of their message is asked for.
        return Milter.ACCEPT if self.getsymval("{auth_authen}") else Milter.CONTINUE

    @Milter.noreply  # the MTA does not wait for the answer, which is always CONTINUE
    def header(self, name, value):
        if name.lower() == "subject":
            self.subjects.append(value)
        if name.lower() == HEADER.lower():
            self.marks += 1
        return Milter.CONTINUE

    def eom(self):
        # Our header means what we say only if nobody else's is there. Headers of one name are
        # counted from 1; from the last to the first, since Postfix counts anew after a deletion,
        # and Sendmail does not.
        for index in range(self.marks, 0, -1):
            self.chgheader(HEADER, index, None)
        self.addheader(HEADER, "yes")

        # Mail has one subject. Where there are several, readers disagree about which one they show.
        for index, subject in enumerate(self.subjects, 1):
            # A reply brings the tag back, maybe in an encoded word. What is not ASCII stays as it
            # is, encoded: the tag stands in front of it.
            if TAG not in parse_header(subject):
                value = f"{TAG} {subject.translate(CLEAN)}"
                self.chgheader("Subject", index, BLANK_LINE.sub("", value))
        if not self.subjects:
            self.addheader("Subject", TAG)
        return Milter.CONTINUE


if __name__ == "__main__":
    Milter.factory = TagHeader
    Milter.runmilter("tag_header", "inet:8894@127.0.0.1")
