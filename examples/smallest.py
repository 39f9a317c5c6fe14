"""The smallest filter that does something: it adds a header to each message."""

import Milter


class Smallest(Milter.Base):
    def eom(self):  # the end of the message, where it may be changed
        self.addheader("X-Filtered", "yes")
        return Milter.CONTINUE


if __name__ == "__main__":
    Milter.factory = Smallest
    Milter.runmilter("smallest", "inet:8894@127.0.0.1")
