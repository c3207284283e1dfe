"""The function's log: a standard output and a standard error that never block and never close."""

import fcntl
import io
import os
import select
import sys
import threading
import time
import weakref
from collections import deque
from contextlib import contextmanager

from fob.calls import current
from fob.environment import hide, settled

LIMIT = 4 << 20  # bytes that may wait to be written
PARTIAL = 64 << 10  # bytes after which an unfinished line is written

_installed = []


class Log:
    """Writes bytes to a descriptor without ever waiting for its reader.

    What the descriptor accepts is written at once, so that it is not lost when the
    function ends the process. The rest is held for a writer thread, which is
    started when it is first needed.
    """

    def __init__(self, fd):
        self.fd, self.blocking = _own(fd)
        self._lock = threading.RLock()  # a finaliser or signal handler may log while its thread holds the lock
        self._held = deque()
        self._size = 0
        self._dropped = 0
        self._last = b"\n"
        self._writer = False

    def put(self, data):
        """Writes, holds or drops data, which is a line or part of a long one."""
        with self._lock:
            if not self._held and not self._dropped:
                data = self._try(data)
                if not data:
                    return
            if self._size + len(data) > LIMIT or not self._start():
                self._dropped += len(data)
                return
            if self._dropped:
                self._hold(self._notice())
            self._hold(data)

    def behind(self):
        """Reports whether so much is held that who can wait should."""
        return self._size > LIMIT // 2

    def drain(self, seconds):
        """Waits until nothing is held, or until the time is over."""
        end = time.monotonic() + seconds
        while (self._held or self._dropped) and time.monotonic() < end:
            time.sleep(0.001)

    def _hold(self, data):
        self._held.append(data)
        self._size += len(data)
        self._last = data[-1:]

    def _notice(self):
        text = b"[fob: %d bytes of log dropped]\n" % self._dropped
        self._dropped = 0
        return text if self._last == b"\n" else b"\n" + text

    def _try(self, data):
        """Writes what can be written now and returns the rest."""
        if self.blocking:
            return data
        try:
            written = os.write(self.fd, data)
        except BlockingIOError:
            return data
        except OSError:
            return b""  # nobody will ever read it
        self._last = data[written - 1 : written]
        return data[written:]

    def _start(self):
        if not self._writer:
            try:
                threading.Thread(target=self._write, name="fob-log", daemon=True).start()
            except RuntimeError:  # the function has used up the sandbox's threads
                return False
            self._writer = True
        return True

    def _write(self):
        ready = select.poll()
        ready.register(self.fd, select.POLLOUT)
        while True:
            with self._lock:
                if self._held:
                    data = self._held[0]
                elif self._dropped:
                    data = self._notice()
                    self._hold(data)
                else:
                    self._writer = False
                    return
            ready.poll()
            try:
                written = os.write(self.fd, data)
            except BlockingIOError:
                continue
            except OSError:
                written = len(data)
            with self._lock:
                if written == len(data):
                    self._held.popleft()
                else:
                    self._held[0] = data[written:]
                self._size -= written

    def forked(self):
        """Forgets what the parent will write: this process only has a copy of it, and no writer thread."""
        self._lock = threading.RLock()
        self._held.clear()
        self._size = self._dropped = 0
        self._writer = False


def _own(fd):
    """Returns a new descriptor for the same file, which the function does not know, and whether writing to it blocks.

    Opening the file again gives the descriptor flags of its own; O_NONBLOCK on a
    duplicate would also apply to the function's child processes. A socket cannot be
    opened again, and gets a duplicate, on which only the writer thread waits.
    """
    try:
        opened = os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK | os.O_APPEND | os.O_CLOEXEC)
        blocking = False
    except OSError:
        try:
            opened, blocking = os.dup(fd), True
        except OSError:  # the process was started without it
            opened, blocking = os.open("/dev/null", os.O_WRONLY), False
    high = fcntl.fcntl(opened, fcntl.F_DUPFD_CLOEXEC, 64)
    os.close(opened)
    return high, blocking


class _Partial:
    """The unfinished line of one thread in one stream, with the call and the level that it is of."""

    __slots__ = ("stream", "log", "call", "level", "pieces", "size", "__weakref__")

    def __init__(self, stream, call):
        self.stream = stream
        self.log = stream.log
        self.call = call
        self.level = stream.level
        self.pieces = []
        self.size = 0

    def add(self, data):
        cut = data.rfind(b"\n") + 1
        if cut:
            self.pieces.append(data[:cut] if cut < len(data) else data)
            self.flush()
            data = data[cut:]
        if data:
            self.stream.begins = True
            self.pieces.append(data)
            self.size += len(data)
            if self.size >= PARTIAL:
                self.flush(goes_on=True)

    def turn(self, call, level):
        """Makes what follows be of a call and a level."""
        if self.pieces:  # a line of both; no frame may be
            self.flush(interrupted=True)
        self.call, self.level = call, level

    def flush(self, goes_on=False, interrupted=False):
        """Writes what there is. If the line goes on, it holds back an end in which a secret may have begun."""
        pieces, self.pieces, self.size = self.pieces, [], 0
        if not pieces:
            return
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        if goes_on and (end := settled(data)) < len(data):
            self.pieces, self.size = [data[end:]], len(data) - end
            data = data[:end]
        if not data:
            return
        stream = self.stream
        if stream.children is not None and stream.children.open:
            stream.children.drain()
        data = hide(data)
        self.log.put(data)
        if stream.sender is not None:
            stream.sender.send(self.call, self.level, data, goes_on or interrupted)

    __del__ = flush  # so that nothing is lost when a thread ends


class Stream(io.TextIOBase):
    """Replaces sys.stdout and sys.stderr. Lines of several threads do not mix."""

    encoding = "utf-8"
    errors = "backslashreplace"
    newlines = None
    mode = "w"

    def __init__(self, fd, name, level):
        self.log = Log(fd)
        self.sender = None  # set if the dispatcher wants the log, too
        self.children = None  # likewise
        self.level = level
        self.name = name
        self.begins = False  # a thread has written an unfinished line
        self.buffer = _Bytes(self)
        self._fd = fd
        self._local = threading.local()
        self._partials = weakref.WeakSet()
        os.register_at_fork(after_in_child=self.forked)

    def _partial(self):
        call = current.get()
        try:
            partial = self._local.partial
        except AttributeError:
            partial = self._local.partial = _Partial(self, call)
            self._partials.add(partial)
        if partial.call is not call:
            partial.turn(call, self.level)
        return partial

    def write(self, text):
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        partial = self._partial()
        if len(text) <= PARTIAL:
            partial.add(text.encode("utf-8", "backslashreplace"))
        else:  # in pieces, so as not to hold all of it twice
            for i in range(0, len(text), PARTIAL):
                partial.add(text[i : i + PARTIAL].encode("utf-8", "backslashreplace"))
        return len(text)

    @contextmanager
    def at(self, level):
        """Makes what the calling thread writes meanwhile have that level."""
        partial = self._partial()
        partial.turn(partial.call, level)
        try:
            yield
        finally:
            partial.turn(partial.call, self.level)

    def end_call(self):
        """Writes the line that the calling thread has begun."""
        partial = self._local.__dict__.get("partial")
        if partial is not None and partial.pieces:
            partial.flush()

    def forked(self):
        """Starts afresh in a forked process. Unfinished lines belong to the parent."""
        for partial in list(self._partials):
            partial.pieces, partial.size = [], 0
        self.log.forked()

    def end(self, seconds):
        """Writes what all threads have begun. Waits at most that many seconds."""
        for partial in list(self._partials):
            partial.flush()
        self.log.drain(seconds)

    def flush(self):
        """Writes the line that the calling thread has begun. Finished lines have been written already."""
        partial = self._local.__dict__.get("partial")
        if partial is not None and partial.pieces:
            partial.flush(goes_on=True)

    def close(self):
        pass  # the driver's streams stay open whatever a function does to them

    def reconfigure(self, **_):
        pass

    def writable(self):
        return True

    def isatty(self):
        return False

    def fileno(self):
        return self._fd

    @property
    def line_buffering(self):
        return True


class _Bytes(io.BufferedIOBase):
    """Replaces sys.stdout.buffer, for functions that print bytes."""

    def __init__(self, stream):
        self._stream = stream
        self.raw = self

    def write(self, data):
        view = memoryview(data).cast("B")
        partial = self._stream._partial()
        for i in range(0, len(view), PARTIAL):
            partial.add(bytes(view[i : i + PARTIAL]))
        return len(view)

    def flush(self):
        self._stream.flush()

    def close(self):
        pass

    def detach(self):
        raise io.UnsupportedOperation("detach")

    def writable(self):
        return True

    def fileno(self):
        return self._stream._fd


def install():
    """Replaces sys.stdout and sys.stderr and returns the two streams."""
    out, err = Stream(1, "<stdout>", b"stdout"), Stream(2, "<stderr>", b"stderr")
    sys.stdout = sys.__stdout__ = out
    sys.stderr = sys.__stderr__ = err
    _installed[:] = out, err
    return out, err


def streams():
    """Returns the installed streams, even if the function has replaced sys.stdout and sys.stderr."""
    return _installed
