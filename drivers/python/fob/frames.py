"""The socket on which the dispatcher gets the function's log: lines with their calls, as frames."""

import errno
import fcntl
import os
import select
import socket
import threading
from collections import deque
from itertools import islice
from time import monotonic, sleep, time_ns

LIMIT = 4 << 20  # bytes that may wait to be sent
PIECE = 64 << 10  # bytes of a line in one frame
TOGETHER = 16  # frames that are sent at once
_NO_SIGNAL = int(socket.MSG_NOSIGNAL)
AGAIN = 1  # seconds between two attempts to connect


class Sender:
    """Sends frames without ever waiting for the dispatcher.

    What the socket takes is sent at once, so that it is not lost when the function
    ends the process. The rest is held for a thread, which is started when it is
    first needed.
    """

    def __init__(self, path):
        self._path = path
        self._lock = threading.RLock()  # a finaliser or signal handler may log while its thread holds the lock
        self._sock = None
        self._next = 0  # when to connect again
        self._held = deque()
        self._size = 0
        self._sent = 0  # bytes of the first frame held
        self._dropped = 0  # frames
        self._pushing = False
        self._writer = False
        self._connect()
        os.register_at_fork(after_in_child=self.forked)

    def send(self, call, level, data, goes_on=False):
        """Sends the lines in data. If the last one has no line break, goes_on says whether more of it follows."""
        id = call and call.id or b"-"
        now = time_ns() // 1000
        length = len(data) - 1
        if length <= PIECE and data.find(b"\n") == length:  # one line, as mostly
            self._put((b"%b %b %d %d\n%b" % (id, level, now, length, data[:-1]),))
            return
        about = b"%b %b" % (id, level)
        lines = data.split(b"\n")
        last = lines.pop()
        frames = []
        for line in lines:
            self._frame(frames, about, now, line, False)
        if last:
            self._frame(frames, about, now, last, goes_on)
        self._put(frames)

    def _put(self, frames):
        with self._lock:
            for frame in frames:
                self._hold(frame)
            # The lock does not keep out its own thread, which may be in the middle of sending.
            if not self._pushing and not self._writer:
                self._push()
                if self._held:
                    self._start()

    def drain(self, seconds):
        """Waits until everything is sent or there is no connection, or until the time is over."""
        end = monotonic() + seconds
        while self._held and self._sock is not None and monotonic() < end:
            sleep(0.001)

    def forked(self):
        """Forgets the connection of the parent and what the parent will send."""
        self._lock = threading.RLock()
        self._held.clear()
        self._size = self._sent = self._dropped = self._next = 0
        self._pushing = self._writer = False
        self._part()

    def _frame(self, frames, about, now, line, goes_on):
        while len(line) > PIECE:
            cut = PIECE
            while cut > PIECE - 4 and line[cut] & 0xC0 == 0x80:  # in the middle of a character
                cut -= 1
            frames.append(b"%b+ %d %d\n%b" % (about, now, cut, line[:cut]))
            line = line[cut:]
        frames.append(b"%b%b %d %d\n%b" % (about, b"+" if goes_on else b"", now, len(line), line))

    def _hold(self, frame):
        if self._size + len(frame) > LIMIT:
            self._dropped += 1
            return
        if self._dropped:
            self._tell()
        self._held.append(frame)
        self._size += len(frame)

    def _tell(self):
        """Holds the frame that says how many were dropped."""
        text = b"%d" % self._dropped
        self._dropped = 0
        frame = b"- dropped %d %d\n%b" % (time_ns() // 1000, len(text), text)
        self._held.append(frame)
        self._size += len(frame)

    def _push(self):
        """Sends what can be sent now."""
        held = self._held
        self._pushing = True
        try:
            while held or self._dropped:
                if not held:
                    self._tell()
                if self._sock is None and not self._connect():
                    return
                data = held[0] if len(held) == 1 else b"".join(islice(held, TOGETHER))
                sent = self._sock.send(data[self._sent :] if self._sent else data, _NO_SIGNAL) + self._sent
                while held and sent >= len(held[0]):
                    frame = held.popleft()
                    self._size -= len(frame)
                    sent -= len(frame)
                self._sent = sent
        except BlockingIOError:
            pass
        except OSError as e:
            self._part(e.errno)
        finally:
            self._pushing = False

    def _connect(self):
        """Connects, unless that was tried just now. Returns whether there is a connection."""
        now = monotonic()
        if now < self._next:
            return False
        self._next = now + AGAIN
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
                sock.setblocking(False)
                sock.connect(self._path)
                # A number that does not take the place of one that the function uses.
                high = fcntl.fcntl(sock.fileno(), fcntl.F_DUPFD_CLOEXEC, 64)
        except OSError:
            return False
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, fileno=high)
        self._sock.setblocking(False)
        return True

    def _part(self, why=0):
        """Gives up the connection. Its last frame is sent again."""
        sock, self._sock, self._sent = self._sock, None, 0
        if sock is None:
            return
        if why in (errno.EBADF, errno.ENOTSOCK):  # the function has closed it; the number may be of something else now
            sock.detach()
        else:
            sock.close()

    def _start(self):
        try:
            threading.Thread(target=self._write, name="fob-frames", daemon=True).start()
            self._writer = True
        except RuntimeError:  # the function has used up the sandbox's threads; the next line tries again
            pass

    def _write(self):
        while True:
            with self._lock:
                self._push()
                if not self._held and not self._dropped:
                    self._writer = False
                    return
                fd = -1 if self._sock is None else self._sock.fileno()
            if fd < 0:
                sleep(max(self._next - monotonic(), 0.01))
            else:
                ready = select.poll()
                ready.register(fd, select.POLLOUT)
                ready.poll()
