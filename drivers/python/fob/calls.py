"""The calls that run: which of them code runs for, and what each costs."""

import contextvars
import fcntl
import os
from resource import RUSAGE_SELF, getrusage
from time import monotonic_ns

current = contextvars.ContextVar("fob_call", default=None)  # the Call that code runs for

# What getrusage says at the start may be what the parent had before exec, and only a
# greater peak is this process's own. /proc/self/status has them all, but takes 20 µs.
_inherited = getrusage(RUSAGE_SELF).ru_maxrss
# A system call more is a tenth of a short call's time. Times are in ns.
_SHORT = 100_000  # a call that took less is said to have used the processor all the time
_RECENT = 1_000_000  # for so long figures stand for those at the next call's beginning
_FRESH = 20_000_000  # for so long a peak that was forgotten is not forgotten again, if little was added to it
_LITTLE = 1024  # KiB
_KEPT = 64  # descriptors that the driver keeps have numbers from here on
_USAGE = [b"Fob-Usage: cpu=%d" % us for us in range(_SHORT // 1000)]  # of short calls, because making it takes longer
_HARMLESS = 1 << 60  # where a write does no harm, should the function have put a file of its own in a descriptor's place


class Call:
    """A call.

    id is None if the dispatcher did not tell it. shared says that another call ran at some
    time during this one. began is when it began, and cpu what the process had used by then.
    """

    __slots__ = ("id", "shared", "began", "cpu")


class Calls:
    """The calls that run in this process. Threads may use it at the same time: adding to a set is one step."""

    def __init__(self):
        self.running = set()
        self._clear = _kept("/proc/self/clear_refs", os.O_WRONLY)
        self._seen = 0  # when the figures were looked up
        self._cpu = 0  # µs that the process had used by then
        self._peak = b"\r\n"  # the text that says the peak, to the end of the line
        self._base = 0 if self._clear is not None else float("inf")  # KiB of the peak when it was forgotten
        self._grown = False  # much was added to it since
        self._due = 0  # when the peak is to be forgotten again even so

    def begin(self, id):
        """Begins a call, and returns it."""
        call = Call()
        call.id = id
        call.shared = False
        running = self.running
        running.add(call)
        if len(running) > 1:
            for one in running.copy():  # one step, unlike going through it
                one.shared = True
        call.began = now = monotonic_ns()
        if now > self._seen + _RECENT or self._grown and not call.shared:
            if (self._grown or now >= self._due) and not call.shared and self._clear is not None:
                self._forget_peak(now)
            self._look(now)
        call.cpu = self._cpu
        return call

    def cost(self, call):
        """Returns the header line that says what a call has cost so far."""
        now = monotonic_ns()
        took = now - call.began
        if took < _SHORT:
            usage = _USAGE[took // 1000]
        else:
            usage = b"Fob-Usage: cpu=%d" % max(self._look(now) - call.cpu, 0)  # another thread may have looked meanwhile
        if call.shared:
            return usage + self._peak[:-2] + b"; shared\r\n"
        return usage + self._peak

    def _look(self, now):
        """Looks up what the process has used, and returns its processor time."""
        user, system, peak = getrusage(RUSAGE_SELF)[:3]
        self._cpu = cpu = (user + system) * 1e6
        self._seen = now
        self._grown = peak > self._base + _LITTLE
        self._peak = b"; peak=%d\r\n" % (peak * 1024) if peak > _inherited and self._clear is not None else b"\r\n"
        return cpu

    def _forget_peak(self, now):
        """Makes the kernel forget the most memory that this process had. That walks over no memory, but lets other threads run."""
        try:
            os.pwrite(self._clear, b"5", _HARMLESS)
        except OSError:  # the function has closed the descriptor
            self._clear = None
            self._base = float("inf")
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
