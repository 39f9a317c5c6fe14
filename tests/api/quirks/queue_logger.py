## A thread that takes log lines from a queue, started before runmilter and joined after it.
import Milter, sys, time, email
from io import BytesIO
from socket import AF_INET, AF_INET6
from Milter.utils import parse_addr
if len(sys.argv) > 2:
  from multiprocessing import Process as Thread, Queue
else:
  from threading import Thread
  from queue import Queue

logq = None

class myMilter(Milter.Base):

  def __init__(self):  # A new instance with each new connection.
    self.id = Milter.uniqueID()

  def connect(self, IPname, family, hostaddr):
    self.IP = hostaddr[0]
    self.port = hostaddr[1]
    if family == AF_INET6:
      self.flow = hostaddr[2]
      self.scope = hostaddr[3]
    else:
      self.flow = None
      self.scope = None
    self.IPname = IPname
    self.H = None
    self.fp = None
    self.receiver = self.getsymval('j')
    self.log("connect from %s at %s" % (IPname, hostaddr))
    return Milter.CONTINUE

  def hello(self, heloname):
    self.H = heloname
    self.log("HELO %s" % heloname)
    if heloname.find('.') < 0:
      self.setreply('550', '5.7.1', 'Please use', 'a proper name')
      return Milter.REJECT
    return Milter.CONTINUE

  def envfrom(self, mailfrom, *str):
    self.F = mailfrom
    self.R = []
    self.fromparms = Milter.dictfromlist(str)
    self.user = self.getsymval('{auth_authen}')
    self.log("mail from:", mailfrom, *str)
    self.fp = BytesIO()
    self.canon_from = '@'.join(parse_addr(mailfrom))
    self.fp.write(('From %s\n' % self.canon_from).encode())
    return Milter.CONTINUE

  @Milter.noreply
  def envrcpt(self, to, *str):
    rcptinfo = to, Milter.dictfromlist(str)
    self.R.append(rcptinfo)
    return Milter.CONTINUE

  @Milter.noreply
  def header(self, name, hval):
    self.fp.write(("%s: %s\n" % (name, hval)).encode('utf8', 'surrogateescape'))
    return Milter.CONTINUE

  @Milter.noreply
  def eoh(self):
    self.fp.write(b"\n")
    return Milter.CONTINUE

  @Milter.noreply
  def body(self, chunk):
    self.fp.write(chunk)
    return Milter.CONTINUE

  def eom(self):
    self.fp.seek(0)
    msg = email.message_from_binary_file(self.fp)
    self.addheader('X-Parts', str(len(list(msg.walk()))))
    self.addheader('X-Size', '%d' % len(self.fp.getvalue()), 0)
    self.log("rcpts", sorted(self.R, key=str), sorted(self.fromparms))
    return Milter.ACCEPT

  def close(self):
    self.log("close")
    return Milter.CONTINUE

  def abort(self):
    self.log("abort")
    return Milter.CONTINUE

  def log(self, *msg):
    logq.put((msg, self.id, time.time()))

def background():
  while True:
    t = logq.get()
    if not t: break
    msg, id, ts = t
    print("[%d]" % id, end=' ')
    for i in msg: print(i, end=' ')
    print()
    sys.stdout.flush()

def main():
  bt = Thread(target=background)
  bt.start()
  timeout = 600
  Milter.factory = myMilter
  flags = Milter.CHGBODY + Milter.CHGHDRS + Milter.ADDHDRS
  flags += Milter.ADDRCPT
  flags += Milter.DELRCPT
  Milter.set_flags(flags)
  print("milter startup")
  sys.stdout.flush()
  Milter.runmilter("pythonfilter", sys.argv[1], timeout)
  logq.put(None)
  bt.join()
  print("milter shutdown")

if __name__ == "__main__":
  logq = Queue(maxsize=4)
  main()
