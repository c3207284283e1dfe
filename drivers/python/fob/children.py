"""The output of child processes. In them, pipes to the driver take the place of its own standard output and error.

Only children get the pipes, and a thread of the driver's reads them. So a child
never waits for the function's code, and the driver's own descriptors 1 and 2 stay
what they are: what it writes there as it dies is not lost. A function without
children costs nothing.
"""

import fcntl
import os
import select
import sys
import threading
from time import sleep

from fob.calls import current
from fob.environment import hide, settled
from fob.frames import PIECE

_DUP2, _FORK_EXEC = os.POSIX_SPAWN_DUP2, (9, 11)  # arguments of fork_exec: the child's standard output and error


class _Pipe:
    """What some child writes to one of its descriptors."""

    __slots__ = ("stream", "call", "fd", "began")

    def __init__(self, stream, fd):
        self.stream = stream
        self.call = current.get()
        self.fd = fd
        self.began = b""  # of a line

    def read(self):
        """Passes on what the pipe holds, at most 64 KiB. Returns None if it holds nothing now, and False at its end."""
        try:
            data = os.read(self.fd, PIECE)
        except BlockingIOError:
            return None
        except OSError:  # the function has closed the descriptor
            data = b""
        if not data:
            self._send(self.began, False)
            return False
        self.stream.log.put(data)
        data = self.began + data
        end = data.rfind(b"\n") + 1
        self._send(data[:end], False)
        if len(data) - end >= PIECE:
            begin, end = end, end + settled(data[end:])
            self._send(data[begin:end], True)
        self.began = data[end:]
        return True

    def _send(self, data, goes_on):
        if data:
            self.stream.sender.send(self.call, self.stream.level, hide(data), goes_on)


class Children:
    """The pipes of all children that run."""

    def __init__(self, streams):
        self.open = {}  # by descriptor
        self._streams = dict(zip((1, 2), streams, strict=True))
        self._files = {fd: _file(fd) for fd in self._streams}
        self._lock = threading.RLock()
        self._reading = False
        self._poll = None
        self._of_thread = threading.local()
        self._leads = False

    def lead(self):
        """Gives children pipes from now on."""
        self._leads = True

    def install(self):
        """Takes part in everything that makes a child."""
        import _posixsubprocess  # built in, mostly

        _posixsubprocess.fork_exec = fork_exec = self._fork_exec(_posixsubprocess.fork_exec)
        if "subprocess" in sys.modules:
            sys.modules["subprocess"]._fork_exec = fork_exec
        os.system = self._system(os.system, os.posix_spawn)
        os.posix_spawn, os.posix_spawnp = self._spawn(os.posix_spawn), self._spawn(os.posix_spawnp)
        os._exit = self._exit(os._exit)
        os.register_at_fork(before=self._before_fork, after_in_parent=self._after_fork, after_in_child=self._in_fork)

    def drain(self, everything=False):
        """Passes on what the pipes hold, so that what the driver writes next comes after it."""
        if not self._lock.acquire(timeout=0.05):
            return
        try:
            for pipe in list(self.open.values()):
                while not pipe.stream.log.behind() and self._turn(pipe) and everything:
                    pass
        finally:
            self._lock.release()

    def _turn(self, pipe):
        """Passes on what a pipe holds, at most 64 KiB, with the lock held. Returns whether it may hold more."""
        if self._reading:  # a finaliser writes while its thread is in here
            return False
        self._reading = True
        try:
            more = pipe.read()
        finally:
            self._reading = False
        if more is False:
            del self.open[pipe.fd]
            # While a forked process has the descriptor, too, closing it would not remove it.
            try:
                self._poll.unregister(pipe.fd)
            except OSError:  # the function has closed it
                pass
            _close(pipe.fd)
        return more

    def _run(self, poll):
        while True:
            with self._lock:
                if not self.open:
                    self._poll = None
                    return
            try:
                ready = poll.poll()
            except OSError:  # the function has closed its descriptor
                with self._lock:
                    self.open.clear()
                continue
            for fd, _ in ready:
                while (pipe := self.open.get(fd)) is not None and pipe.stream.log.behind():
                    sleep(0.005)  # so that the child has to wait, too
                with self._lock:
                    if fd in self.open:
                        self._turn(self.open[fd])

    def ends(self, fds):
        """Makes a pipe for each descriptor that is still the driver's own. Returns the ends to write to, by descriptor."""
        if self.open:
            self.drain()
        ends, pipes = {}, []
        try:
            for fd in fds:
                if self._leads and self._files[fd] is not None and _file(fd) == self._files[fd]:
                    ours, theirs = _pipe()
                    ends[fd] = theirs
                    pipes.append(_Pipe(self._streams[fd], ours))
            if pipes:
                self._watch(pipes)
        except (OSError, RuntimeError):  # too many descriptors or threads; the child inherits the driver's own
            for pipe in pipes:
                self.open.pop(pipe.fd, None)
                _close(pipe.fd)
            _close(*ends.values())
            return {}
        return ends

    def _watch(self, pipes):
        with self._lock:
            if self._poll is None:
                poll = select.epoll()
                threading.Thread(target=self._run, args=(poll,), name="fob-children", daemon=True).start()
                self._poll = poll
            for pipe in pipes:
                self._poll.register(pipe.fd, select.EPOLLIN)
                self.open[pipe.fd] = pipe

    def _fork_exec(self, plain):
        def fork_exec(*args):
            given = [fd if args[at] == -1 else args[at] for at, fd in zip(_FORK_EXEC, (1, 2), strict=True)]
            ends = self.ends({1, 2}.intersection(given))
            if not ends:
                return plain(*args)
            args = list(args)
            for at, fd in zip(_FORK_EXEC, given, strict=True):
                args[at] = ends.get(fd, args[at])
            try:
                return plain(*args)
            finally:
                _close(*ends.values())

        return fork_exec

    def _spawn(self, plain):
        def spawn(path, argv, env, **options):
            ends = self.ends((1, 2))
            options["file_actions"] = (*((_DUP2, end, fd) for fd, end in ends.items()), *(options.get("file_actions") or ()))
            try:
                return plain(path, argv, env, **options)
            finally:
                _close(*ends.values())

        return spawn

    def _system(self, plain, spawn):
        def system(command):
            command = os.fsencode(command)
            ends = self.ends((1, 2))
            if not ends:
                return plain(command)
            try:
                sys.audit("os.system", command)
                child = spawn("/bin/sh", ["sh", "-c", command], os.environ, file_actions=[(_DUP2, end, fd) for fd, end in ends.items()])
            finally:
                _close(*ends.values())
            return os.waitpid(child, 0)[1]

        return system

    def _exit(self, plain):
        def leave(status):
            if self.open:
                self.drain(everything=True)
            plain(status)

        return leave

    def _before_fork(self):
        self._of_thread.ends = self.ends((1, 2))

    def _after_fork(self):
        _close(*self._of_thread.ends.values())

    def _in_fork(self):
        for fd, end in self._of_thread.ends.items():
            if _file(fd) == self._files[fd]:  # forkpty gives the child others
                os.dup2(end, fd)
            os.close(end)
        self._leads = False
        self._lock = threading.RLock()
        for fd in self.open:
            os.close(fd)
        self.open.clear()


def _file(fd):
    """Returns what tells the file behind a descriptor from others."""
    try:
        found = os.fstat(fd)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _pipe():
    """Makes a pipe whose descriptors are no standard ones. Reading from it does not wait."""
    ends = os.pipe()
    try:
        high = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 64) for end in ends]
    finally:
        for end in ends:
            os.close(end)
    os.set_blocking(high[0], False)
    return high


def _close(*fds):
    for fd in fds:
        try:
            os.close(fd)
        except OSError:  # the function has closed it
            pass
