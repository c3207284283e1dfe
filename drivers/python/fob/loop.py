"""Event loops: one that runs everything asynchronous in a function, for all calls, in a thread of its own; and those of plain functions.

This module takes long to import, so it is imported only when it is needed.
"""

import asyncio
import os
import queue
import selectors
import sys
import threading
from concurrent.futures import Future

from fob import fork

OLD = sys.version_info < (3, 14)  # get_event_loop() makes a loop in the main thread


class Policy(asyncio.DefaultEventLoopPolicy if OLD else object):
    """Gives every thread what asyncio gives only the main thread: a loop when it first asks for one.

    A plain function never runs in the main thread, but it is written like a
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
        """Makes asyncio forget that the calling thread has asked for a loop."""
        own = self._of_thread.__dict__
        own.pop("loop", None)
        loop = own.pop("made", None)
        # It has descriptors, so close it at once, unless the function still refers to it.
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
    """Ends a forked process that would run the loop.

    It shares the loop's descriptors with the driver, and would steal the driver's
    events.
    """
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
        # Only the driver may run what is ready.
        self._loop._ready.clear()

    def wait(self, awaitable, context):
        value, e = self.start(self._shield(awaitable), context).result()
        if e is not None:
            raise e
        return value

    def items(self, iterator, context):
        """Turns an asynchronous iterator into a plain one for another thread, which must close it."""
        return Items(self, iterator, context)

    def start(self, coroutine, context):
        """Runs a coroutine as a task in the context itself, not in a copy. Returns a future for another thread."""
        future = Future()
        self._loop.call_soon_threadsafe(self._begin, coroutine, context, future)
        return future

    def _begin(self, coroutine, context, future):
        try:
            # The future keeps the task alive; the loop has only a weak reference to it.
            future.task = self._loop.create_task(coroutine, context=context)
            future.task.add_done_callback(lambda task: end(task, future))
        except BaseException as e:  # noqa: B902, the function's own task factory may raise anything
            future.set_exception(e)

    def soon(self, call, *args):
        self._loop.call_soon_threadsafe(call, *args)

    async def _shield(self, awaitable):
        # A SystemExit in the loop would end it, and every other call with it.
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

    A single task runs the iterator, because asyncio.timeout and others require it.
    The task runs only while somebody waits for the next item.
    """

    def __init__(self, loop, iterator, context):
        self._loop = loop
        self._iterator = iterator
        self._asked = asyncio.Queue()  # True for an item, False for the end
        self._given = queue.SimpleQueue()
        self._task = loop.start(self._run(), context)
        self._task.add_done_callback(self._over)

    def _over(self, task):
        # A task that was cancelled before its first step has put nothing, and somebody may be waiting.
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
