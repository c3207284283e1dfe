"""The function's log: standard output and error that never block and never close."""

import fcntl
import io
import os
import select
import sys
import threading
import time
import weakref
from collections import deque

from fob.environment import hide, settled

LIMIT = 4 << 20  # bytes held that cannot be written yet
PARTIAL = 64 << 10  # bytes after which a line is written although it has not ended

_installed = []


class Log:
    """Writes bytes to a descriptor without ever waiting for its reader.

    What the descriptor takes at once is written at once, so that it is not lost
    when the function ends the process; the rest is held for a writer thread
    that is started the first time it is needed.
    """

    def __init__(self, fd):
        self.fd, self.blocking = _own(fd)
        self._lock = threading.RLock()  # a finaliser or signal handler may log while its thread is in here
        self._held = deque()
        self._size = 0
        self._dropped = 0
        self._last = b"\n"
        self._writer = False

    def put(self, data):
        """Writes data, a whole line or part of a long one, or holds or drops it."""
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

    def drain(self, seconds):
        """Waits until nothing is held, or for so long."""
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
        """Forgets what is the parent's to write, of which this process has but a copy. It has no writer thread either."""
        self._lock = threading.RLock()
        self._held.clear()
        self._size = self._dropped = 0
        self._writer = False


def _own(fd):
    """Returns a descriptor for the same file that the function does not know of, and whether writing to it blocks.

    Opening it anew gives it flags of its own: setting O_NONBLOCK on a duplicate
    would set it for the function's child processes too. A socket cannot be
    opened anew, and gets a duplicate that the writer thread may wait for.
    """
    try:
        opened = os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK | os.O_APPEND | os.O_CLOEXEC)
        blocking = False
    except OSError:
        try:
            opened, blocking = os.dup(fd), True
        except OSError:  # started without it
            opened, blocking = os.open("/dev/null", os.O_WRONLY), False
    high = fcntl.fcntl(opened, fcntl.F_DUPFD_CLOEXEC, 64)
    os.close(opened)
    return high, blocking


class _Partial:
    """The line that one thread has begun in one stream."""

    __slots__ = ("stream", "log", "pieces", "size", "__weakref__")

    def __init__(self, stream):
        self.stream = stream
        self.log = stream.log
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

    def flush(self, goes_on=False):
        """Writes what there is; when the line goes on, without the secret that its end may have begun."""
        pieces, self.pieces, self.size = self.pieces, [], 0
        if not pieces:
            return
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        if goes_on and (end := settled(data)) < len(data):
            self.pieces, self.size = [data[end:]], len(data) - end
            data = data[:end]
        if data:
            self.log.put(hide(data))

    __del__ = flush  # a thread that ends leaves nothing unsaid


class Stream(io.TextIOBase):
    """Stands in for sys.stdout and sys.stderr. Lines of several threads do not mix."""

    encoding = "utf-8"
    errors = "backslashreplace"
    newlines = None
    mode = "w"

    def __init__(self, fd, name):
        self.log = Log(fd)
        self.name = name
        self.begins = False  # whether a thread ever began a line without ending it at once
        self.buffer = _Bytes(self)
        self._fd = fd
        self._local = threading.local()
        self._partials = weakref.WeakSet()
        os.register_at_fork(after_in_child=self.forked)

    def _partial(self):
        try:
            return self._local.partial
        except AttributeError:
            partial = self._local.partial = _Partial(self)
            self._partials.add(partial)
            return partial

    def write(self, text):
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        partial = self._partial()
        if len(text) <= PARTIAL:
            partial.add(text.encode("utf-8", "backslashreplace"))
        else:  # piece by piece, not to hold it twice
            for i in range(0, len(text), PARTIAL):
                partial.add(text[i : i + PARTIAL].encode("utf-8", "backslashreplace"))
        return len(text)

    def end_call(self):
        """Writes the line that the calling thread has begun."""
        partial = self._local.__dict__.get("partial")
        if partial is not None and partial.pieces:
            partial.flush()

    def forked(self):
        """Begins anew in a process that was forked: what was begun is its parent's to end."""
        for partial in list(self._partials):
            partial.pieces, partial.size = [], 0
        self.log.forked()

    def end(self, seconds):
        """Writes what all threads have begun, waiting no longer than so many seconds."""
        for partial in list(self._partials):
            partial.flush()
        self.log.drain(seconds)

    def flush(self):
        """Writes the line that the calling thread has begun; one that has ended is written already."""
        partial = self._local.__dict__.get("partial")
        if partial is not None and partial.pieces:
            partial.flush(goes_on=True)

    def close(self):
        pass  # the driver outlives what a function does to its streams

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
    """sys.stdout.buffer, for those who print bytes."""

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
    out, err = Stream(1, "<stdout>"), Stream(2, "<stderr>")
    sys.stdout = sys.__stdout__ = out
    sys.stderr = sys.__stderr__ = err
    _installed[:] = out, err
    return out, err


def streams():
    """Returns what was installed, whatever the function made of sys.stdout and sys.stderr."""
    return _installed
