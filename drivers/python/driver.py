"""The Python driver: loads one function and answers calls to it.

See drivers/contract/README.md for what it must do. The parts are fob.log (the
function's log), fob.function (load, bind, call; with annotations, values and
errors beside it), fob.http (the wire) and, in fob itself, what a function may
import.
"""

import os
import select
import signal
import socket
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))  # python3 -I leaves it out

from fob import fork, http, log  # noqa: E402
from fob.errors import Failure  # noqa: E402

# What a log with calls needs.
FRAMES = ("fob.carry", "fob.children", "fob.frames")
# What most functions import, and what coroutines need. Each module comes after those that it
# imports itself, so that no step takes long.
AHEAD = ("typing", "datetime", "dataclasses", "random", "urllib.parse", "logging", "concurrent.futures.thread", "subprocess",
         "ssl", "email.parser", "http.client", "urllib.request", "fob.loop")  # fmt: skip
QUIET = 10  # ms without a connection before the next step


def main():
    setting = {name: os.environ.pop(name, "") for name in ("FOB_SOCKET", "FOB_TOKEN", "FOB_TCP", "FOB_CODE_URL")}
    if not setting["FOB_SOCKET"] and not setting["FOB_TOKEN"]:
        print("driver: nothing to listen on: set FOB_SOCKET to a path, or FOB_TOKEN to listen on TCP", file=sys.stderr)
        sys.exit(2)
    streams = log.install()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: end(streams, 0))
    driver = http.Driver(setting["FOB_TOKEN"], streams, os.path.dirname(setting["FOB_SOCKET"]))
    try:
        tcp = listen_tcp(setting["FOB_TCP"] or "0.0.0.0:8080", driver) if setting["FOB_TOKEN"] else None
        if setting["FOB_CODE_URL"]:
            fetch(setting["FOB_CODE_URL"], setting["FOB_TOKEN"], driver)
        if tcp is not None:
            tcp.listen(1024)
        unix = listen_unix(setting["FOB_SOCKET"]) if setting["FOB_SOCKET"] else None
    except (OSError, ValueError) as e:
        print(f"driver: cannot start: {e}", file=sys.stderr)
        end(streams, 1)

    # Loading a function needs these. Connections that come meanwhile wait in
    # the backlog for less time than importing them before listening would take.
    import inspect  # noqa: F401
    import traceback  # noqa: F401

    for listener in (unix, tcp):
        if listener is not None:
            fork.hold(listener)
    poll = select.poll()
    listeners = {listener.fileno(): listener for listener in (unix, tcp) if listener is not None}
    for fd in listeners:
        poll.register(fd, select.POLLIN)
    ahead = [*FRAMES, driver.prepare, *AHEAD]
    while True:
        ready = poll.poll(QUIET if ahead else None)
        for fd, _ in ready:
            http.accept(listeners[fd], driver)
        if driver.state != "blank":
            ahead.clear()  # the function has imported what it needs
        elif ahead and not ready:
            with driver.importing:
                step = ahead.pop(0)
                try:
                    __import__(step) if type(step) is str else step()
                except ImportError:  # this Python has no OpenSSL, say; a function that needs it gets the error
                    pass


def listen_unix(path):
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        os.unlink(path)  # a killed driver leaves it behind
    except FileNotFoundError:
        pass
    mask = os.umask(0)
    try:
        listener.bind(path)
    finally:
        os.umask(mask)
    listener.listen(1024)
    return listener


def listen_tcp(address, driver):
    """Binds a socket, so that its port is known. Listening comes last."""
    host, _, port = address.rpartition(":")
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((host.strip("[]"), int(port)))
    driver.port = listener.getsockname()[1]
    return listener


def fetch(url, token, driver):
    """Loads the code that a URL returns."""
    from urllib.request import Request, urlopen

    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        with urlopen(Request(url, headers=headers), timeout=30) as answer:
            code = answer.read().decode("utf-8")
    except (OSError, ValueError) as e:
        raise ValueError(f"FOB_CODE_URL={url}: {e}") from None
    try:
        driver.load({"code": code})
    except Failure as e:
        error = e.document["error"]
        raise ValueError(f"FOB_CODE_URL={url}: {error.get('traceback') or error['message']}") from None


def end(streams, status):
    """Ends the process at once. Writes the log first, as far as that takes no more than 100 ms."""
    for stream in streams:
        stream.end(0.03)
    if streams[0].sender is not None:
        streams[0].sender.drain(0.03)
    os._exit(status)


if __name__ == "__main__":
    main()
