"""Handles processes that the function forks. Each has a copy of the driver, and must never act as the driver.

At-fork hooks do most of this. But a fork by libc itself runs no hooks, so the
driver also checks the process ID before it goes on with anything.
"""

import os
import signal

from fob import errors, log

_driver = os.getpid()
_hooked = False  # whether the hooks ran in this process
_held = set()  # the driver's sockets


def forked():
    """Reports whether this process is not the driver but one that the function forked."""
    return os.getpid() != _driver


def hold(sock):
    """Makes forked processes close a socket."""
    _held.add(sock)


def let_go(sock):
    """Closes a socket that hold was called for."""
    _held.discard(sock)
    sock.close()


def leave(e=None):
    """Ends a forked process that returned from the function, like the end of a script. e is what the function raised, if anything."""
    status = 0
    try:
        streams = log.streams()
        if not _hooked:
            for stream in streams:
                stream.log.forked()
            if streams[0].sender is not None:
                streams[0].sender.forked()
        if isinstance(e, SystemExit) and (e.code is None or isinstance(e.code, int)):
            status = e.code or 0
        elif isinstance(e, SystemExit):
            status = 1
            streams[1].write(f"{e.code}\n")
        elif e is not None:
            status = 1
            streams[1].write(errors.raised(500, "raised", e).document["error"]["traceback"])
        for stream in streams:
            if _hooked:
                stream.end(1)
            else:  # what other threads began belongs to the driver
                stream.end_call()
                stream.log.drain(1)
        if streams[0].sender is not None:
            streams[0].sender.drain(1)
    finally:
        os._exit(status & 0xFF)


def _after():
    global _hooked
    _hooked = True
    for sock in list(_held):
        let_go(sock)
    # Whoever kills it should see that it was killed.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)


os.register_at_fork(after_in_child=_after)
