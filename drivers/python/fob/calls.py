"""The calls that run: which of them code runs for, and what each costs."""

import contextvars
import fcntl
import os
import threading
from resource import RUSAGE_SELF, getrusage
from time import monotonic, process_time_ns

current = contextvars.ContextVar("fob_call", default=None)  # the Call that code runs for

# What getrusage says at the start may be what the parent had before exec, and only a
# greater peak is this process's own. /proc/self/status has them all, but takes 20 µs.
_inherited = getrusage(RUSAGE_SELF).ru_maxrss
_FRESH = 0.02  # seconds for which a peak that was forgotten is not forgotten again, if little was added to it
_LITTLE = 1024  # KiB
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
        self._due = 0  # when the peak is to be forgotten again
        self._base = 0  # KiB of the peak when it was forgotten

    def begin(self, id):
        """Begins a call, and returns it; None if it has no ID."""
        if id is None:
            return None
        call = Call(id)
        with self._lock:
            self._running += 1
            if self._running == 1:
                self._alone = call
                if self._clear is not None and (now := monotonic()) >= self._due:
                    self._forget_peak(now)
            else:
                call.shared = True
                if self._alone is not None:
                    self._alone.shared = True
                    self._alone = None
        call.cpu = process_time_ns()
        return call

    def end(self, call):
        """Ends a call that has begun."""
        with self._lock:
            self._running -= 1
            if self._alone is call:
                self._alone = None

    def cost(self, call):
        """Returns the header line that says what a call has cost so far."""
        usage = getrusage(RUSAGE_SELF)
        user, system, peak = usage[:3]
        if peak > self._base + _LITTLE:  # the next call has a peak of its own
            self._due = 0
        cpu = (user + system) * 1e6 - call.cpu / 1000
        if cpu < 0:  # the two clocks round in their own ways
            cpu = 0
        shown = b"; peak=%d" % (peak * 1024) if peak > _inherited and self._clear is not None else b""
        return b"Fob-Usage: cpu=%d%b%b\r\n" % (cpu, shown, b"; shared" if call.shared else b"")

    def _forget_peak(self, now):
        """Makes the kernel forget the most memory that this process had. That walks over no memory, but lets other threads run."""
        try:
            os.pwrite(self._clear, b"5", _HARMLESS)
        except OSError:  # the function has closed the descriptor
            self._clear = None
            return
        self._due = now + _FRESH
        self._base = getrusage(RUSAGE_SELF).ru_maxrss


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
