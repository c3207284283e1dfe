"""Event loops: the one that runs whatever of a function is asynchronous, for all calls, in a thread of its own; and those of plain functions.

Importing this takes long, so only what needs it does.
"""

import asyncio
import os
import queue
import selectors
import sys
import threading
from concurrent.futures import Future

from fob import fork

OLD = sys.version_info < (3, 14)  # get_event_loop() makes a loop, in the thread that a script has


class Policy(asyncio.DefaultEventLoopPolicy if OLD else object):
    """Gives each thread what asyncio gives only the main one: a loop when it asks for the first time.

    A plain function never runs in the main thread, but is written like a
    script: asyncio.get_event_loop().run_until_complete(…).
    """

    def __init__(self):
        super().__init__()
        self._of_thread = threading.local()

    def get_event_loop(self):
        own = self._of_thread.__dict__
        if "loop" not in own:
            own["loop"] = own["made"] = loop = self.new_event_loop()
            own["references"] = sys.getrefcount(loop)
        if own["loop"] is None:
            raise RuntimeError(f"There is no current event loop in thread {threading.current_thread().name!r}.")
        return own["loop"]

    def set_event_loop(self, loop):
        self._of_thread.loop = loop

    def forget(self):
        """Makes the calling thread one that has not asked for a loop yet."""
        own = self._of_thread.__dict__
        own.pop("loop", None)
        loop = own.pop("made", None)
        # Closed at once, for it has descriptors; but not one that the function holds on to.
        if loop is not None and sys.getrefcount(loop) <= own["references"] - 2:
            loop.close()


if OLD:
    policy = Policy()
    asyncio.set_event_loop_policy(policy)
    forget = policy.forget
else:

    def forget():
        asyncio.set_event_loop(None)


def leave_fork():
    """Ends a forked process that would run the loop: it shares with the driver what that waits for, and would take it away."""
    if fork.forked():
        fork.leave(RuntimeError("a forked process cannot await: the event loop is its parent's; use asyncio.run"))


class Selector(selectors.DefaultSelector):
    def select(self, timeout=None):
        leave_fork()
        return super().select(timeout)


class Loop:
    def __init__(self, end_call):
        self.end_call = end_call
        self._loop = asyncio.SelectorEventLoop(Selector())
        os.register_at_fork(after_in_child=self._forked)
        threading.Thread(target=self._run, name="fob-loop", daemon=True).start()

    def _run(self):
        try:
            self._loop.run_forever()
        finally:
            leave_fork()

    def _forked(self):
        # What is ready is for the driver to run.
        self._loop._ready.clear()

    def wait(self, awaitable, context):
        value, e = self.start(self._shield(awaitable), context).result()
        if e is not None:
            raise e
        return value

    def items(self, iterator, context):
        """Returns an asynchronous iterator as a plain one for another thread, which must close it."""
        return Items(self, iterator, context)

    def start(self, coroutine, context):
        """Runs a coroutine as a task in the context itself, no copy, and returns the task as a future for another thread."""
        future = Future()
        self._loop.call_soon_threadsafe(self._begin, coroutine, context, future)
        return future

    def _begin(self, coroutine, context, future):
        try:
            # The future keeps the task, of which the loop has but a weak reference.
            future.task = self._loop.create_task(coroutine, context=context)
            future.task.add_done_callback(lambda task: end(task, future))
        except BaseException as e:  # noqa: B902, a task factory of the function's own
            future.set_exception(e)

    def soon(self, call, *args):
        self._loop.call_soon_threadsafe(call, *args)

    async def _shield(self, awaitable):
        # A SystemExit that reached the loop would end it, and with it every other call.
        try:
            value = await awaitable
            if fork.forked():
                fork.leave()
            return value, None
        except BaseException as e:  # noqa: B902
            if fork.forked():
                fork.leave(e)
            return None, e
        finally:
            self.end_call()


def end(task, future):
    if task.cancelled():
        future.set_exception(asyncio.CancelledError())
    elif task.exception() is not None:
        future.set_exception(task.exception())
    else:
        future.set_result(task.result())


class Items:
    """The items of an asynchronous iterator, one at a time.

    One task runs all of it, as things like asyncio.timeout in it ask for. It
    runs only while the next item is asked for.
    """

    def __init__(self, loop, iterator, context):
        self._loop = loop
        self._iterator = iterator
        self._asked = asyncio.Queue()  # True for an item, False for the end
        self._given = queue.SimpleQueue()
        self._task = loop.start(self._run(), context)
        self._task.add_done_callback(self._over)

    def _over(self, task):
        # One that was cancelled before its first step has given nothing, and somebody may wait for it.
        if task.exception() is not None:
            self._given.put((None, task.exception()))

    def __next__(self):
        self._loop.soon(self._asked.put_nowait, True)
        item, e = self._given.get()
        if isinstance(e, StopAsyncIteration):
            raise StopIteration
        if e is not None:
            raise e
        return item

    def close(self):
        """Ends the iterator, in its task, and waits until it has ended."""
        self._loop.soon(self._asked.put_nowait, False)
        e = self._task.result()
        if e is not None:
            raise e

    async def _run(self):
        try:
            while await self._asked.get():
                try:
                    given = await anext(self._iterator), None
                except BaseException as e:  # noqa: B902, see Loop
                    given = None, e
                if fork.forked():
                    fork.leave(None if isinstance(given[1], StopAsyncIteration) else given[1])
                self._given.put(given)
        except BaseException as e:  # noqa: B902, the function cancelled all tasks
            self._given.put((None, e))
        return await self._close()

    async def _close(self):
        try:
            close = getattr(self._iterator, "aclose", None)
            if close is not None:
                await close()
        except BaseException as e:  # noqa: B902
            return e
        finally:
            self._loop.end_call()
