"""Processes in callbacks: forked by hand, by multiprocessing, as a pool; workers from before."""
import multiprocessing, os, subprocess, sys
from concurrent.futures import ProcessPoolExecutor
import Milter

fork = multiprocessing.get_context("fork")


def work(conn, text):
    conn.send(text.upper())
    conn.close()


def worker(questions, answers):
    for number, text in iter(questions.get, None):
        answers.put((number, len(text)))


class Processes(Milter.Base):
    def hello(self, name):
        done = subprocess.run(["tr", "a-z", "A-Z"], input=name.encode(), stdout=subprocess.PIPE)
        self.name = done.stdout.decode()
        return Milter.CONTINUE

    def envfrom(self, f, *params):
        r, w = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(r)
            os.write(w, f[::-1].encode())
            os._exit(0)
        os.close(w)
        with os.fdopen(r) as pipe:
            self.reversed = pipe.read()
        self.status = os.waitpid(pid, 0)[1]
        return Milter.CONTINUE

    def envrcpt(self, to, *params):
        questions.put((7, to))
        self.length = answers.get()
        return Milter.CONTINUE

    def eom(self):
        ours, theirs = fork.Pipe()
        p = fork.Process(target=work, args=(theirs, self.name))
        p.start()
        text = ours.recv()
        p.join()
        self.addheader("X-Processes", "%s %s %s %s %s" % (text, p.is_alive(), self.reversed, self.status, self.length))
        return Milter.CONTINUE


if __name__ == "__main__":
    questions, answers = fork.Queue(), fork.Queue()
    workers = [fork.Process(target=worker, args=(questions, answers), daemon=True) for _ in range(2)]
    for w in workers:
        w.start()
    Milter.factory = Processes
    Milter.runmilter("processes", sys.argv[1], 60)
    for w in workers:
        questions.put(None)
    for w in workers:
        w.join()
    print([w.exitcode for w in workers])
