"""HTTP/1.1 as far as a driver needs it: a thread for each connection, blocking sockets, and one send for each answer or item."""

import fcntl
import os
import select
import socket
import sys
import threading
from _operator import _compare_digest  # hmac has it, too, but imports OpenSSL, 3 MB

from fob import Request, environment, fork, function
from fob.answer import marked, own, plain, refusal
from fob.calls import Calls, current
from fob.errors import Failure, TooLarge
from fob.stream import Stream
from fob.values import parse_object, render

HEAD_LIMIT = 256 << 10  # bytes; Fob-Args can be large
CHUNK = 64 << 10
FAMILIAR = 1 << 10  # bytes of a head that is worth caching
PIECE = 256 << 10  # bytes of a body to read at a time; a Unix socket holds less
CALL = b"Fob-Call: "  # begins a request's first field, which has the token
MARK = len(CALL) + 16 + 2  # bytes of that line
CALL_ID = b"Fob-Call-Id: "  # begins the field after it
VISIBLE = bytes(range(33, 127))
USUAL, GAP = b"POST / HTTP/1.1\r\n" + CALL, b"\r\n" + CALL_ID  # what stands before a call's token, and before its ID
TOKEN = len(USUAL)
TOKEN_END = TOKEN + 16
ID = TOKEN_END + len(GAP)


class Unreadable(Exception):
    """Raised when the end of a request cannot be found. The driver answers and closes the connection."""

    def __init__(self, status, message):
        self.failure = Failure(status, "bad_request", message)


class Closed(Exception):
    """Raised when the peer is gone."""


class Driver:
    """What all connections share: the function and its state."""

    def __init__(self, token, streams, folder):
        self.streams = streams
        self.folder = folder  # of the socket; empty if there is none
        self.token = token.encode("utf-8", "surrogateescape") if token else None
        self.port = None
        self.function = None
        self.state = "blank"
        self.about = {}
        self.calls = Calls()
        self.importing = threading.Lock()  # held while something is done ahead
        self._children = None  # set by prepare
        self._once = threading.Lock()

    def health(self):
        document = {
            "state": self.state,
            "lang": "python",
            "runtime": ".".join(map(str, sys.version_info[:3])),
            "contract": 2,
            "in_flight": len(self.calls.running),
            "port": self.port,
            **self.about,
        }
        if self.function is not None:
            document["takes_request"] = self.function.takes_request
        return document

    def load(self, document):
        """Loads the document in the body of a PUT, once in the driver's life."""
        code, about = document.get("code"), {}
        if type(code) is not str:
            raise Failure(400, "bad_request", 'the body must be {"code": "…"}, with the code as a string')
        for name, kind in (("function", str), ("version", int)):
            if name in document:
                if type(document[name]) is not kind:
                    raise Failure(400, "bad_request", f"{name} must be of type {kind.__name__}")
                about[name] = document[name]
        way, frames = (self.beside(name, document.get(name)) for name in ("proxy", "log"))
        try:
            env, secrets = environment.read(document)
        except ValueError as e:
            raise Failure(400, "bad_request", str(e)) from None
        if not self._once.acquire(blocking=False):
            raise Failure(409, "already_loaded", "a driver loads code once; start a new one for other code")
        self.state = "loading"
        try:
            environment.install(env, secrets)
            if way is not None:
                from fob.proxy import open_way

                open_way(way)
            if frames is not None:
                self.send_frames(frames)
        except OSError as e:
            raise Failure(422, "load_failed", f"its environment cannot be set up: {e.strerror}", type=type(e).__name__) from None
        try:
            self.function = function.load(code, self.end_call)
            self.about = about
        finally:
            # After a failed load the state stays "loading": the driver is of no further use.
            self.end_call()
            fill_standard_descriptors()
        self.state = "loaded"

    def beside(self, name, given):
        """Returns the path of a socket beside FOB_SOCKET, or None if none is given."""
        if given is None:
            return None
        if type(given) is not str or not given or "/" in given or not self.folder:
            raise Failure(400, "bad_request", f"{name} must be the name of a socket beside FOB_SOCKET")
        return os.path.join(self.folder, given)

    def send_frames(self, path):
        """Sends the function's log to the dispatcher from now on."""
        with self.importing:  # what is changed must not be half imported
            self.prepare()
            from fob.frames import Sender

            sender = Sender(path)
            for stream in self.streams:
                stream.sender, stream.children = sender, self._children
            self._children.lead()

    def prepare(self):
        """Does ahead what sending the log needs. Without frames it changes nothing. The caller holds importing."""
        if self._children is None:
            from fob import carry
            from fob.children import Children

            self._children = Children(self.streams)
            self._children.install()
            carry.install()

    def answer(self, head, body, connection):
        """Answers one request and returns the bytes to send; for a stream, the last ones. body is None if the function reads it itself."""
        method, target = head.method, head.target
        if target == b"/":
            if method != b"POST":
                raise Failure(405, "bad_method", "calls are POST /")
            return self.call(head.headers, body, connection)
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

    def call(self, headers, body, connection):
        f = self.function
        if f is None:
            raise Failure(409, "not_loaded", "nothing is loaded; PUT /_fob/function first")
        request = None
        if f.takes_request:
            method = headers.get(b"fob-method", b"POST").decode("latin-1")
            target = headers.get(b"fob-target", b"/").decode("utf-8", "replace")
            root = headers.get(b"fob-root", b"").decode("utf-8", "replace")
            request = Request(method, target, root, body, headers, connection.pieces)
        elif body is None:
            raise TooLarge
        calls = self.calls
        call = calls.begin(connection.id)
        try:
            value = f.call(headers.get(b"fob-args"), body, request, headers.get(b"fob-content-type"), call)
            if type(value) is Stream:
                current.set(call)  # for what the driver writes into the log
                try:
                    return value.send(connection, self.streams[1], lambda: b"" if call.id is None else calls.cost(call))
                finally:
                    current.set(None)
            answer = None if type(value) is bytes else own(value)
        finally:
            if f.forget is not None:
                f.forget()
            self.end_call()
            if call.id is not None:
                connection.cost = calls.cost(call)
            calls.running.discard(call)
        return connection.result(value) if answer is None else answer

    def end_call(self):
        """Writes the log lines that the calling thread has begun, and those of children that have ended."""
        out, err = self.streams
        if out.children is not None and out.children.open:
            out.children.drain()
        if out.begins:
            out.end_call()
        if err.begins:
            err.end_call()


class Head:
    """A request's head, with its framing worked out."""

    __slots__ = ("method", "target", "headers", "token", "length", "streams", "expects", "last")

    def __init__(self, data, with_token):
        lines = data.split(b"\r\n")
        words = lines[0].split(b" ")
        if len(words) != 3 or words[2] not in (b"HTTP/1.1", b"HTTP/1.0"):
            raise Unreadable(400, "this is no HTTP/1.1 request")
        self.method, self.target, version = words
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
                    value = headers[name] + (b"; " if name == b"cookie" else b", ") + value
            headers[name] = value
        self.headers = headers
        self.token = headers.pop(b"authorization", b"") if with_token else None
        coding, length = headers.pop(b"transfer-encoding", None), headers.get(b"content-length")
        if coding is not None:
            if coding.lower() != b"chunked" or length is not None:
                raise Unreadable(400, "bodies come with Content-Length or Transfer-Encoding: chunked")
            self.length = None  # it comes in chunks
        elif length is None:
            self.length = 0
        elif length.isdigit() and len(length) <= 18:
            self.length = int(length)
        else:
            raise Unreadable(400, "Content-Length is not a number")
        self.streams = self.target == b"/" and headers.get(b"fob-stream") == b"request"
        self.expects = self.length != 0 and b"expect" in headers
        self.last = version == b"HTTP/1.0" or headers.get(b"connection", b"").lower() == b"close"


class Connection:
    """Reads requests from one socket and answers them, in a thread of its own."""

    def __init__(self, sock, driver, token):
        self.sock = sock
        self.driver = driver
        self.token = token
        self.buffer = b""
        self.mark = b""  # the request's line with the token, which the answer repeats
        self.id = None  # of the call
        self.cost = b""  # the line that says what the call cost
        self.length = 0  # of the request's body; None if it comes in chunks
        self.unread = False  # part of that body has not been read
        self.begun = False  # the answer has begun
        self.last = False  # the connection ends with the answer
        self.gone = False  # the peer has shut down its side
        self._watch = None
        self._data, self._head = None, None  # the last head: as it came, and parsed
        self._rest = ()  # its bytes after the ID, if all else is as in USUAL and no body follows

    def serve(self):
        try:
            while self.turn():
                pass
        except Unreadable as e:
            self.part(refusal(e.failure))
        except (Closed, OSError, MemoryError):
            pass
        finally:
            if fork.forked():
                fork.leave()
            fork.let_go(self.sock)

    def turn(self):
        """Answers one request and returns whether another may follow."""
        head = self.head()
        if self.token is not None:
            if not _compare_digest(head.token, b"Bearer " + self.token):
                self.part(refusal(Failure(401, "unauthorized", "say Authorization: Bearer TOKEN")))
                return False
        if head.expects:
            self.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        self.length, self.unread = head.length, head.length != 0
        self.last, self.begun, self.cost = head.last, False, b""
        body = None if head.streams else self.body() if self.unread else b""
        try:
            answer = self.driver.answer(head, body, self)
        except Failure as e:
            answer = refusal(e)
        except MemoryError:
            answer = refusal(Failure(500, "raised", "out of memory", type="MemoryError"))
        self.send(answer if self.begun else self.opening(answer))
        if self.unread and self.token is not None:
            self.linger()
        return not self.last

    def result(self, value):
        """Prepares the answer that has a function's result, JSON bytes, as nearly all have."""
        if self.last or self.unread:
            return plain(200, value)
        head = b"HTTP/1.1 200 OK\r\n%b%bContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
        answer = head % (self.mark, self.cost, len(value), value)
        self.begun = True  # now that there is memory for it
        return answer

    def opening(self, answer):
        """Prepares an answer, or the beginning of one, for sending."""
        self.begun = True
        if self.unread:
            self.last = True
        return marked(answer, self.mark + self.cost, self.last)

    def send(self, data):
        """Sends data. A process that the function forked ends here instead."""
        if fork.forked():
            fork.leave()
        self.sock.sendall(data)

    def head(self):
        """Reads a request's head. Calls of one function often have identical heads."""
        buffer = self.buffer or self.receive(CHUNK)
        if buffer.endswith(self._rest) and buffer.startswith(USUAL) and buffer[TOKEN_END:ID] == GAP:
            # Nearly every request: the last call's head once more, with another token and ID.
            token, id = buffer[TOKEN:TOKEN_END], buffer[ID : -len(self._rest)]
            if token.isalnum() and 0 < len(id) <= 64 and not id.translate(None, VISIBLE):
                self.mark, self.id, self.buffer = CALL + token + b"\r\n", id, b""
                return self._head
        self.mark, self.id = b"", None
        end = buffer.find(b"\r\n\r\n")
        while end < 0 and len(buffer) <= HEAD_LIMIT:
            start = max(0, len(buffer) - 3)
            buffer += self.receive(CHUNK)
            end = buffer.find(b"\r\n\r\n", start)
        at = buffer.find(b"\r\n") + 2
        mark = buffer[at : at + MARK]
        if mark.startswith(CALL) and mark.endswith(b"\r\n") and mark[len(CALL) : -2].isalnum():
            self.mark = mark
        if not 0 <= end <= HEAD_LIMIT:
            raise Unreadable(431, "the headers are longer than 256 KiB; send large arguments in the body")
        data, self.buffer = buffer[:end], buffer[end + 4 :]
        if self.mark:
            rest = at + MARK
            if buffer.startswith(CALL_ID, rest):
                stop = buffer.find(b"\r\n", rest)
                id = buffer[rest + len(CALL_ID) : stop]
                if 0 < len(id) <= 64 and not id.translate(None, VISIBLE):
                    self.id, rest = id, stop + 2
            data = data[: at - 2] + data[rest - 2 :]
        if data == self._data:
            return self._head
        head = Head(data, self.token is not None)
        if end <= FAMILIAR:
            self._data, self._head = data, head
            again = self.id is not None and head.length == 0 and not self.buffer and buffer.startswith(USUAL)
            self._rest = buffer[stop:] if again else ()
        return head

    def body(self):
        """Reads the request's body."""
        buffer, length = self.buffer, self.length
        if length is None or len(buffer) < length:
            return b"".join(self.read())
        self.unread, self.buffer = False, buffer[length:]
        return buffer[:length]

    def pieces(self):
        """Passes the request's body to the function as it comes."""
        pieces = self.read()
        try:
            # A process that was forked from the driver must not read the driver's input.
            while not fork.forked() and (piece := next(pieces, None)) is not None:
                yield piece
            if fork.forked():
                raise Closed
        except (Closed, Unreadable, OSError):  # perhaps because the call has ended
            raise ConnectionError("the request's body broke off") from None

    def read(self):
        """Yields the request's body in pieces."""
        if self.length is not None:
            yield from self.some(self.length, True)
            return
        while length := self.chunk():
            yield from self.some(length, False)
            if self.take(2) != b"\r\n":
                raise Unreadable(400, "a chunk does not end where it says")
        while self.line():
            pass  # trailers
        self.unread = False

    def some(self, left, all_of_it):
        """Yields that many bytes in pieces."""
        while left:
            if self.buffer:
                piece, self.buffer = self.buffer[:left], self.buffer[left:]
            else:
                piece = self.receive(min(left, PIECE))
            left -= len(piece)
            if all_of_it and not left:
                self.unread = False
            yield piece

    def take(self, length):
        """Reads a small number of bytes."""
        while len(self.buffer) < length:
            self.buffer += self.receive(CHUNK)
        data, self.buffer = self.buffer[:length], self.buffer[length:]
        return data

    def line(self):
        while (end := self.buffer.find(b"\r\n")) < 0:
            if len(self.buffer) > CHUNK:
                raise Unreadable(400, "a chunk's header is too long")
            self.buffer += self.receive(CHUNK)
        line, self.buffer = self.buffer[:end], self.buffer[end + 2 :]
        return line

    def chunk(self):
        """Reads the length of the next chunk."""
        size = self.line().partition(b";")[0].strip()
        try:
            length = int(size, 16)
        except ValueError:
            length = -1
        if not 0 <= length < 1 << 60 or not size.isalnum():
            raise Unreadable(400, "a chunk's size is not a number")
        return length

    def receive(self, most):
        data = self.sock.recv(most)
        if not data:
            self.gone = True
            raise Closed
        return data

    def takes_no_more(self):
        """Reports whether the peer has shut down its side, even if part of its request is still unread. It does not wait."""
        if self._watch is None:
            self._watch = select.poll()
            self._watch.register(self.sock, select.POLLRDHUP)
        return self.gone or bool(self._watch.poll(0))

    def part(self, answer):
        """Sends the last answer on the connection, and lingers."""
        try:
            self.send(marked(answer, self.mark, True))
        except OSError:
            return
        self.linger()

    def linger(self):
        """Waits a little for the peer to hang up. Closing a connection with unread bytes would reset it, and lose the answer."""
        try:
            self.sock.settimeout(1)
            self.sock.shutdown(socket.SHUT_WR)
            for _ in range(64):
                if not self.sock.recv(CHUNK):
                    break
        except OSError:
            pass


def accept(listener, driver):
    """Accepts a connection and gives it a thread."""
    try:
        sock, _ = listener.accept()
    except OSError:  # it is gone again, or there are no descriptors
        return
    if sock.fileno() < 3:
        # The function has closed its standard output. What it writes there must not go to a caller.
        high = fcntl.fcntl(sock.fileno(), fcntl.F_DUPFD_CLOEXEC, 64)
        sock.close()
        fill_standard_descriptors()
        sock = socket.socket(fileno=high)
    over_tcp = listener.family != socket.AF_UNIX
    if over_tcp:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection = Connection(sock, driver, driver.token if over_tcp else None)
    fork.hold(sock)
    try:
        threading.Thread(target=connection.serve, daemon=True).start()
    except RuntimeError:  # the function has used up the sandbox's threads
        fork.let_go(sock)


def fill_standard_descriptors():
    """Opens /dev/null in place of standard descriptors that were closed."""
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            os.open("/dev/null", os.O_RDWR)  # takes the lowest free one, which is fd
