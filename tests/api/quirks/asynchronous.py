"""Event loops in callbacks, one for each call or one in a thread of its own."""
import asyncio, sys, threading
import Milter

loop = asyncio.new_event_loop()


async def look_up(name):
    await asyncio.sleep(0)
    return name[::-1]


class Asynchronous(Milter.Base):
    def hello(self, name):
        self.name = asyncio.run(look_up(name))
        return Milter.CONTINUE

    def envfrom(self, f, *params):
        self.tasks = [look_up(f)]
        return Milter.CONTINUE

    def envrcpt(self, to, *params):
        self.tasks.append(look_up(to))
        return Milter.CONTINUE

    def abort(self):
        return self.close()

    def close(self):
        for task in self.__dict__.pop("tasks", ()):
            task.close()
        return Milter.CONTINUE

    def eom(self):
        async def all_of_them():
            return await asyncio.gather(*self.tasks)
        found = asyncio.run_coroutine_threadsafe(all_of_them(), loop).result(10)
        self.addheader("X-Found", " ".join([self.name, *found]))
        try:
            asyncio.get_running_loop()
        except RuntimeError as e:
            print(e, threading.current_thread() is threading.main_thread(), flush=True)
        return Milter.CONTINUE


async def main():
    # serves inside a coroutine, which blocks the loop of the main thread
    Milter.factory = Asynchronous
    Milter.runmilter("asynchronous", sys.argv[1], 60)
    print("served")


if __name__ == "__main__":
    threading.Thread(target=loop.run_forever, daemon=True).start()
    asyncio.run(main())
