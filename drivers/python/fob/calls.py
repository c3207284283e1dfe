"""The calls that run: which of them code runs for, and what each costs."""

import contextvars
import fcntl
import os
import resource
import threading
from time import process_time_ns

current = contextvars.ContextVar("fob_call", default=None)  # the Call that code runs for

# What this process had at its start may be what its parent had before exec. A peak
# above it is this process's own.
_inherited = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
_KEPT = 64  # descriptors that the driver keeps have numbers from here on
_HARMLESS = 1 << 60  # where a write does no harm, should the function have put a file of its own in a descriptor's place


class Call:
    """A call whose ID the dispatcher told."""

    __slots__ = ("id", "shared", "cpu")

    def __init__(self, id):
        self.id = id
        self.shared = False  # another call ran at some time during this one
        self.cpu = 0  # ns of the process when it began


class Calls:
    """The calls that run in this process."""

    def __init__(self):
        self._lock = threading.Lock()
        self._running = 0
        self._alone = None  # the only one, if none other ran since it began
        self._clear = _kept("/proc/self/clear_refs", os.O_WRONLY)
        self._status = _kept("/proc/self/status", os.O_RDONLY)

    def begin(self, id):
        """Begins a call in the calling thread, and returns it; None if it has no ID."""
        if id is None:
            return None
        call = Call(id)
        with self._lock:
            self._running += 1
            if self._running == 1:
                self._alone = call
                self._forget_peak()
            else:
                call.shared = True
                if self._alone is not None:
                    self._alone.shared = True
                    self._alone = None
        current.set(call)
        call.cpu = process_time_ns()
        return call

    def end(self, call):
        """Ends a call that has begun in the calling thread."""
        current.set(None)
        with self._lock:
            self._running -= 1
            if self._alone is call:
                self._alone = None

    def cost(self, call):
        """Returns the header line that says what a call has cost so far."""
        used = resource.getrusage(resource.RUSAGE_SELF)
        cpu = (round((used.ru_utime + used.ru_stime) * 1e6)) - call.cpu // 1000
        peak = self._peak(used.ru_maxrss) if self._clear is not None else 0
        return b"Fob-Usage: cpu=%d%b%b\r\n" % (max(cpu, 0), b"; peak=%d" % peak if peak else b"", b"; shared" if call.shared else b"")

    def _forget_peak(self):
        """Makes the kernel forget the most memory that this process had. That walks over no memory."""
        if self._clear is not None:
            try:
                os.pwrite(self._clear, b"5", _HARMLESS)
            except OSError:  # the function has closed the descriptor
                self._clear = None

    def _peak(self, most):
        """Returns the bytes of the peak. most is what getrusage says, in KiB."""
        if most <= _inherited and self._status is not None:
            try:
                _, found, rest = os.pread(self._status, 4096, 0).partition(b"\nVmHWM:")
            except OSError:
                found = b""
            if not found:
                return 0
            most = int(rest.split(None, 1)[0])
        return most * 1024


def _kept(path, flags):
    """Opens a file with a descriptor that does not take the place of one that the function uses. Returns None if that fails."""
    try:
        opened = os.open(path, flags | os.O_CLOEXEC)
        try:
            return fcntl.fcntl(opened, fcntl.F_DUPFD_CLOEXEC, _KEPT)
        finally:
            os.close(opened)
    except OSError:
        return None
