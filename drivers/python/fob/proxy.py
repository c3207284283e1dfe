"""The way out of a sandbox without a network: a port on loopback that leads to the proxy's Unix socket."""

import os
import select
import socket
import threading

PIECE = 64 << 10  # bytes read at a time, and held at most of a connection in each direction


def open_way(path):
    """Listens on loopback for clients of the proxy at path, and sets the environment variables by which they find it."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)
    # One thread for all connections: a sandbox may have few threads.
    threading.Thread(target=Relay(listener, path).run, name="fob-proxy", daemon=True).start()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    for name, value in (("http_proxy", url), ("https_proxy", url), ("no_proxy", "localhost,127.0.0.1,::1")):
        os.environ[name] = os.environ[name.upper()] = value
    os.environ["NODE_USE_ENV_PROXY"] = "1"


class End:
    """One end of a relayed connection, with the bytes that wait to be sent to it."""

    __slots__ = ("sock", "other", "held", "ended", "told", "mask")

    def __init__(self, sock):
        sock.setblocking(False)
        self.sock = sock
        self.other = None
        self.held = b""
        self.ended = False  # it will send no more
        self.told = False  # it knows that the other end will send no more
        self.mask = 0

    def wants(self):
        wants = select.POLLOUT if self.held else 0
        if not self.ended and not self.other.held:
            wants |= select.POLLIN
        return wants


class Relay:
    """Passes bytes between a listener's connections and connections to a Unix socket."""

    def __init__(self, listener, path):
        self.listener = listener
        self.path = path
        self.ends = {}  # by descriptor
        self.poll = select.poll()
        self.poll.register(listener, select.POLLIN)

    def run(self):
        while True:
            for fd, event in self.poll.poll():
                if fd == self.listener.fileno():
                    self.accept()
                elif fd in self.ends:  # unless its other end has just closed both
                    self.turn(self.ends[fd], event)

    def accept(self):
        try:
            near, _ = self.listener.accept()
        except OSError:
            return
        far = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            near.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            far.setblocking(False)
            far.connect(self.path)
        except OSError:  # the dispatcher is gone, or too busy
            near.close()
            far.close()
            return
        one, other = End(near), End(far)
        one.other, other.other = other, one
        for end in (one, other):
            self.ends[end.sock.fileno()] = end
            self.watch(end)

    def turn(self, end, event):
        try:
            if event & select.POLLOUT:
                self.send(end)
            elif end.wants() & select.POLLIN:
                self.receive(end)
            else:
                raise ConnectionError("it broke")
            for e in (end, end.other):
                if e.other.ended and not e.held and not e.told:
                    e.told = True
                    e.sock.shutdown(socket.SHUT_WR)
            if end.told and end.other.told:
                raise ConnectionError("both have ended")
        except BlockingIOError:
            pass
        except OSError:
            self.close(end)
            return
        self.watch(end)
        self.watch(end.other)

    def receive(self, end):
        data = end.sock.recv(PIECE)
        if not data:
            end.ended = True
            return
        end.other.held = data
        try:
            self.send(end.other)
        except BlockingIOError:
            pass

    def send(self, end):
        end.held = end.held[end.sock.send(end.held) :]

    def watch(self, end):
        """Registers an end with the poll for what it wants.

        An end that wants nothing is removed, or the poll would report again and again
        that it hung up.
        """
        mask = end.wants()
        if mask == end.mask:
            return
        if mask:
            self.poll.register(end.sock, mask)
        else:
            self.poll.unregister(end.sock)
        end.mask = mask

    def close(self, end):
        for e in (end, end.other):
            del self.ends[e.sock.fileno()]
            if e.mask:
                self.poll.unregister(e.sock)
            e.sock.close()
