"""An answer that streams: each item of an iterator is sent as a chunk."""

from fob import fork
from fob.answer import BODYLESS, own, own_head
from fob.errors import Failure
from fob.values import render_value

CHUNKED = b"Transfer-Encoding: chunked\r\n"
PIECE = 1 << 20  # bytes of an item that are sent as one chunk
BYTES = (bytes, bytearray, memoryview)
END = object()


class Items:
    """A plain iterator that runs in its call's context, whatever its thread does in between."""

    def __init__(self, iterator, context):
        self._iterator = iterator
        self._run = context.run

    def __next__(self):
        return self._run(next, self._iterator)

    def close(self):
        close = getattr(self._iterator, "close", None)
        if close is not None:
            self._run(close)


class Stream:
    """What callme returned, and how to send it.

    items is a plain iterator that can be closed. response is the Response whose body it is, or None.
    failure turns what the iterator raises into a Failure.
    """

    def __init__(self, items, response, failure):
        self.items = items
        self.response = response
        self.failure = failure
        self.render = raw

    def send(self, connection, log, cost):
        """Sends everything but the end of the answer, and returns the end. Closes the iterator. cost gives a trailer.

        Raises a Failure for an error before the first item. A later error goes to
        the log, and its code into the end.
        """
        code = None
        try:
            if self.response is not None and self.response.status in BODYLESS:
                return own_head(self.response, False, b"")
            while (item := self.next()) is not END:
                if connection.takes_no_more():
                    code = "cancelled"
                    break
                opening = b"" if connection.begun else self.head(item)
                data = self.render(item)
                if opening:
                    opening = connection.opening(opening)
                for at in range(0, len(data), PIECE):
                    part = data[at : at + PIECE]
                    connection.sock.sendall(b"%b%x\r\n%b\r\n" % (opening, len(part), part))
                    opening = b""
                if opening:  # the item is empty
                    connection.sock.sendall(opening)
        except Failure as e:
            code = self.fail(e, connection, log)
        except MemoryError:
            code = self.fail(Failure(500, "raised", "out of memory", type="MemoryError"), connection, log)
        except OSError:  # from sending
            code = "cancelled"
        finally:
            self.close(log)
        if code == "cancelled":
            connection.last = True
        end = b"0\r\n%b%b\r\n" % (b"Fob-Error: %b\r\n" % code.encode() if code else b"", cost())
        return end if connection.begun else connection.opening(self.head(END)) + end

    def next(self):
        try:
            item = self.items.__next__()
        except StopIteration:
            item = END
        except BaseException as e:  # noqa: B902, SystemExit too
            raise self.failure(e) from None
        if fork.forked():
            fork.leave()
        return item

    def head(self, first):
        """Makes the answer's head, and chooses how items are rendered. Without a response the first item decides."""
        if self.response is not None:
            return own_head(self.response, isinstance(first, str), CHUNKED)
        if isinstance(first, str):
            kind = b"text/plain; charset=utf-8"
        elif isinstance(first, BYTES):
            kind = b"application/octet-stream"
        else:
            kind, self.render = b"application/x-ndjson", line
        return b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\n%b\r\n" % (kind, CHUNKED)

    def fail(self, failure, connection, log):
        """Returns the code with which the answer ends, and logs the reason."""
        if not connection.begun:
            raise failure
        if connection.gone:  # the function noticed it when it read the request
            return "cancelled"
        say(log, failure)
        return "raised" if failure.code == "bad_arguments" else failure.code

    def close(self, log):
        try:
            self.items.close()
        except BaseException as e:  # noqa: B902, SystemExit too
            say(log, self.failure(e))


def raw(item):
    """Renders an item of a stream of text or bytes."""
    if isinstance(item, str):
        return item.encode("utf-8", "backslashreplace")
    if isinstance(item, bytes):
        return item
    if isinstance(item, BYTES):
        return bytes(item)
    raise Failure(500, "bad_result", f"callme yielded {type(item).__name__} in a stream of text or bytes")


def line(item):
    return render_value(item) + b"\n"


def say(log, failure):
    """Logs a failure that no answer can report."""
    error = failure.document["error"]
    log.write(error.get("traceback") or f"{error['code']}: {error['message']}\n")
