"""A factory that hands a configuration on; exceptions let mail through; unguarded addresses."""
import configparser, logging, sys
import Milter
from Milter.utils import parse_addr, iniplist
from Milter.config import MilterConfigParser

logging.basicConfig(stream=sys.stdout, format="%(levelname)s %(message)s", level=logging.INFO)
log = logging.getLogger("configured")

DEFAULTS = {"timeout": "30", "internal": "192.168.0.0/16, 127.0.0.1, 2001:db8::"}


class Policy(Milter.Base):
    ids = 0

    def __init__(self, conf, verbose=False):
        Policy.ids += 1
        self.id = Policy.ids
        self.conf = conf
        self.verbose = verbose

    def connect(self, name, family, hostaddr):
        self.internal = iniplist(hostaddr[0], self.conf.getlist("milter", "internal"))
        log.info("%d %s %s %s", self.id, name, hostaddr[0], self.internal)
        return Milter.CONTINUE

    def envfrom(self, f, *params):
        self.params = Milter.param2dict(params)
        user, domain = parse_addr(f)
        self.spammer = user.lower() in self.conf.getaddrset("milter", "blocked").get(domain, ())
        log.info("%d %s %s %s", self.id, user, domain, sorted(self.params.items(), key=str))
        if self.spammer and not self.internal:
            self.setreply("550", xcode="5.7.1", msg="Not you")
            return Milter.REJECT
        return Milter.CONTINUE

    def header(self, name, value):
        if name.lower() == "subject":
            self.subject = value.encode("ascii", "replace").decode()
        return Milter.CONTINUE

    def eom(self):
        self.chgheader("Subject", 0, "[%s] %s" % (self.conf.getdefault("milter", "tag", "tag"), self.subject))
        self.addheader("X-Ids", str(self.id), idx=1)
        return Milter.CONTINUE


def main():
    conf = MilterConfigParser(DEFAULTS)
    conf.add_section("milter")
    conf.set("milter", "blocked", "bad@example.net, worse@example.net")
    Milter.factory = lambda: Policy(conf, verbose=True)
    Milter.set_exception_policy(Milter.ACCEPT)
    try:
        Milter.runmilter("configured", socketname=sys.argv[1], timeout=conf.getintdefault("milter", "timeout", 5))
    except Milter.milter.error as e:
        log.error(e)
        sys.exit(255)
    log.info("terminated")


main()
