"""HTTP/1.1 as far as a driver needs it: one thread a connection, blocking sockets, one send an answer."""

import fcntl
import os
import socket
import sys
import threading
from _operator import _compare_digest  # hmac has it too, but brings OpenSSL along, 3 MB

from fob import Request, function
from fob.errors import Failure
from fob.values import parse_object, render

HEAD_LIMIT = 256 << 10  # bytes; Fob-Args can be large
CHUNK = 64 << 10

REASONS = {200: "OK", 400: "Bad Request", 401: "Unauthorized", 404: "Not Found", 405: "Method Not Allowed",
           409: "Conflict", 422: "Unprocessable Content", 431: "Request Header Fields Too Large",
           500: "Internal Server Error"}  # fmt: skip
HOP_BY_HOP = frozenset(("connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"))
TOKEN = frozenset("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")

CONTROLS = frozenset(map(chr, (*range(9), *range(10, 32), 127)))


class Unreadable(Exception):
    """The request cannot be told from what follows it: answer, and close."""

    def __init__(self, status, message):
        self.failure = Failure(status, "bad_request", message)


class Closed(Exception):
    """The peer has gone."""


class Driver:
    """What all connections share: the function and how it is doing."""

    def __init__(self, token, streams):
        self.streams = streams
        self.token = token.encode("utf-8", "surrogateescape") if token else None
        self.port = None
        self.function = None
        self.state = "blank"
        self.about = {}
        self.running = set()  # connections that are in a call
        self._once = threading.Lock()

    def health(self):
        document = {
            "state": self.state,
            "lang": "python",
            "runtime": ".".join(map(str, sys.version_info[:3])),
            "contract": 1,
            "in_flight": len(self.running),
            "port": self.port,
            **self.about,
        }
        if self.function is not None:
            document["takes_request"] = self.function.takes_request
        return document

    def load(self, document):
        """Loads what the body of a PUT says, once and for life."""
        code, about = document.get("code"), {}
        if type(code) is not str:
            raise Failure(400, "bad_request", 'the body must be {"code": "…"}, with the code as a string')
        for name, kind in (("function", str), ("version", int)):
            if name in document:
                if type(document[name]) is not kind:
                    raise Failure(400, "bad_request", f"{name} must be of type {kind.__name__}")
                about[name] = document[name]
        if not self._once.acquire(blocking=False):
            raise Failure(409, "already_loaded", "a driver loads code once; start a new one for other code")
        self.state = "loading"
        try:
            self.function = function.load(code, self.end_call)
            self.about = about
        finally:
            # A failed load leaves the state at loading: this driver is spent.
            self.end_call()
            fill_standard_descriptors()
        self.state = "loaded"

    def answer(self, method, target, headers, body, key):
        """Answers one request with bytes."""
        if target == b"/":
            if method != b"POST":
                raise Failure(405, "bad_method", "calls are POST /")
            return self.call(headers, body, key)
        if target == b"/_fob/health":
            if method != b"GET":
                raise Failure(405, "bad_method", "health is GET /_fob/health")
            return plain(200, render(self.health()))
        if target == b"/_fob/function":
            if method != b"PUT":
                raise Failure(405, "bad_method", "loading is PUT /_fob/function")
            self.load(parse_object(body, "the body"))
            return plain(200, render(self.health()))
        raise Failure(404, "unknown_path", "there are /, /_fob/health and /_fob/function")

    def call(self, headers, body, key):
        f = self.function
        if f is None:
            raise Failure(409, "not_loaded", "nothing is loaded; PUT /_fob/function first")
        request = None
        if f.takes_request:
            method = headers.get(b"fob-method", b"POST").decode("latin-1")
            request = Request(method, headers.get(b"fob-target", b"/").decode("utf-8", "replace"), body, headers)
        self.running.add(key)
        try:
            value = f.call(headers.get(b"fob-args"), body, request)
        finally:
            self.running.discard(key)
            self.end_call()
        if type(value) is bytes:
            return plain(200, value)
        return own(value)

    def end_call(self):
        """Writes the log lines that the calling thread has begun."""
        for stream in self.streams:
            stream.end_call()


def plain(status, body, more=b""):
    """Makes an answer of JSON bytes."""
    if status == 200:
        return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    reason = REASONS.get(status, "Error").encode()
    head = b"HTTP/1.1 %d %b\r\nContent-Type: application/json\r\n%bContent-Length: %d\r\n\r\n%b"
    return head % (status, reason, more, len(body), body)


def refusal(failure):
    """Makes an answer of a Failure."""
    return plain(failure.status, render(failure.document), b"Fob-Error: %b\r\n" % failure.code.encode())


def own(response):
    """Makes an answer of the function's own Response."""
    body, status, headers = response.body, response.status, response.headers
    text = isinstance(body, str)
    if text:
        body = body.encode("utf-8", "backslashreplace")
    elif body is None:
        body = b""
    elif isinstance(body, (bytearray, memoryview)):
        body = bytes(body)
    elif not isinstance(body, bytes):
        raise bad(f"its body is {type(body).__name__}, not bytes or text")
    if not isinstance(status, int) or not 200 <= status <= 599:
        raise bad(f"its status is {status!r}, not a number from 200 to 599")
    try:
        pairs = [(n, v) for n, values in headers.items() for v in (values if isinstance(values, (list, tuple)) else [values])]
    except Exception:  # noqa: B902, whatever the function put there
        raise bad("its headers are not a mapping") from None
    lines, typed = [], False
    for name, value in pairs:
        if not isinstance(name, str) or not name or not TOKEN.issuperset(name):
            raise bad(f"{name!r} is no header name")
        if not isinstance(value, str) or not CONTROLS.isdisjoint(value):
            raise bad(f"its header {name} is not one line of text")
        lower = name.lower()
        typed = typed or lower == "content-type"
        if lower in HOP_BY_HOP or lower == "content-length" or lower.startswith("fob-"):
            continue
        try:
            lines.append(b"%b: %b\r\n" % (name.encode(), value.encode("latin-1")))
        except UnicodeEncodeError:
            raise bad(f"its header {name} has characters beyond Latin-1") from None
    if text and not typed:
        lines.append(b"Content-Type: text/plain; charset=utf-8\r\n")
    if status in (204, 304):
        body = b""
    else:
        lines.append(b"Content-Length: %d\r\n" % len(body))
    return b"HTTP/1.1 %d %b\r\n%b\r\n%b" % (status, REASONS.get(status, "Own").encode(), b"".join(lines), body)


def bad(why):
    return Failure(500, "bad_result", f"callme returned a Response that is none: {why}")


class Connection:
    """Reads requests from one socket and answers them, in its own thread."""

    def __init__(self, sock, driver, token):
        self.sock = sock
        self.driver = driver
        self.token = token
        self.buffer = b""

    def serve(self):
        try:
            while self.turn():
                pass
        except Unreadable as e:
            self.part(refusal(e.failure))
        except (Closed, OSError, MemoryError):
            pass
        finally:
            self.sock.close()

    def turn(self):
        """Answers one request and says whether another may follow."""
        method, target, version, headers = self.head()
        if self.token is not None:
            given = headers.pop(b"authorization", b"")
            if not _compare_digest(given, b"Bearer " + self.token):
                self.part(refusal(Failure(401, "unauthorized", "say Authorization: Bearer TOKEN")))
                return False
        body = self.body(headers)
        try:
            answer = self.driver.answer(method, target, headers, body, self)
        except Failure as e:
            answer = refusal(e)
        except MemoryError:
            answer = refusal(Failure(500, "raised", "out of memory", type="MemoryError"))
        self.sock.sendall(answer)
        return version == b"HTTP/1.1" and headers.get(b"connection", b"").lower() != b"close"

    def head(self):
        buffer = self.buffer
        end = buffer.find(b"\r\n\r\n")
        while end < 0:
            if len(buffer) > HEAD_LIMIT:
                raise Unreadable(431, "the headers are longer than 256 KiB; send large arguments in the body")
            more = self.sock.recv(CHUNK)
            if not more:
                raise Closed
            start = max(0, len(buffer) - 3)
            buffer += more
            end = buffer.find(b"\r\n\r\n", start)
        if end > HEAD_LIMIT:
            raise Unreadable(431, "the headers are longer than 256 KiB; send large arguments in the body")
        lines = buffer[:end].split(b"\r\n")
        self.buffer = buffer[end + 4 :]
        words = lines[0].split(b" ")
        if len(words) != 3 or words[2] not in (b"HTTP/1.1", b"HTTP/1.0"):
            raise Unreadable(400, "this is no HTTP/1.1 request")
        headers = {}
        for line in lines[1:]:
            name, colon, value = line.partition(b":")
            if not colon or not name or name[-1] in b" \t" or name[0] in b" \t":
                raise Unreadable(400, "a header line is malformed")
            name, value = name.lower(), value.strip(b" \t")
            if name in headers:
                if name == b"content-length" and value != headers[name] or name == b"fob-args":
                    raise Unreadable(400, f"two headers {name.decode()}")
                if name != b"content-length":
                    value = headers[name] + b", " + value
            headers[name] = value
        return words[0], words[1], words[2], headers

    def body(self, headers):
        length, coding = headers.get(b"content-length"), headers.pop(b"transfer-encoding", None)
        if length is None and coding is None:
            return b""
        if b"expect" in headers:
            self.sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        if coding is not None:
            if coding.lower() != b"chunked" or length is not None:
                raise Unreadable(400, "bodies come with Content-Length or Transfer-Encoding: chunked")
            return self.chunked()
        if not length.isdigit() or len(length) > 18:
            raise Unreadable(400, "Content-Length is not a number")
        return self.take(int(length))

    def take(self, length):
        """Reads so many bytes."""
        buffer = self.buffer
        if len(buffer) >= length:
            self.buffer = buffer[length:]
            return buffer[:length]
        parts, have = [buffer], len(buffer)
        self.buffer = b""
        while have < length:
            part = self.sock.recv(min(length - have, 1 << 20))
            if not part:
                raise Closed
            parts.append(part)
            have += len(part)
        return b"".join(parts)

    def line(self):
        while (end := self.buffer.find(b"\r\n")) < 0:
            if len(self.buffer) > CHUNK:
                raise Unreadable(400, "a chunk's header is too long")
            more = self.sock.recv(CHUNK)
            if not more:
                raise Closed
            self.buffer += more
        line, self.buffer = self.buffer[:end], self.buffer[end + 2 :]
        return line

    def chunked(self):
        parts = []
        while True:
            size = self.line().partition(b";")[0].strip()
            try:
                length = int(size, 16)
            except ValueError:
                length = -1
            if not 0 <= length < 1 << 60 or not size.isalnum():
                raise Unreadable(400, "a chunk's size is not a number")
            if length == 0:
                while self.line():
                    pass  # trailers
                return b"".join(parts)
            parts.append(self.take(length))
            if self.take(2) != b"\r\n":
                raise Unreadable(400, "a chunk does not end where it says")

    def part(self, answer):
        """Answers and waits a little for the peer to hang up, as closing on unread bytes would reset the answer away."""
        try:
            self.sock.settimeout(1)
            self.sock.sendall(answer.replace(b"\r\n", b"\r\nConnection: close\r\n", 1))
            self.sock.shutdown(socket.SHUT_WR)
            for _ in range(64):
                if not self.sock.recv(CHUNK):
                    break
        except OSError:
            pass


def accept(listener, driver):
    """Takes one connection and gives it a thread."""
    try:
        sock, _ = listener.accept()
    except OSError:  # gone again, or out of descriptors
        return
    if sock.fileno() < 3:
        # The function closed its standard output: what it writes there must not go to a caller.
        high = fcntl.fcntl(sock.fileno(), fcntl.F_DUPFD_CLOEXEC, 64)
        sock.close()
        fill_standard_descriptors()
        sock = socket.socket(fileno=high)
    over_tcp = listener.family != socket.AF_UNIX
    if over_tcp:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection = Connection(sock, driver, driver.token if over_tcp else None)
    try:
        threading.Thread(target=connection.serve, daemon=True).start()
    except RuntimeError:  # the function has used up the sandbox's threads
        sock.close()


def fill_standard_descriptors():
    """Opens /dev/null in place of a standard descriptor that was closed."""
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            os.open("/dev/null", os.O_RDWR)  # takes the lowest free one, which is fd
