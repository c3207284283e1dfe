"""What a function may import: `from fob import Response`.

The driver itself is in this package, too. Only the names in `__all__` are meant
for functions.
"""

from fob.errors import TooLarge as _TooLarge
from fob.values import parse_json as _parse_json

__all__ = ["File", "Request", "Response"]


class Response:
    """A response that the function makes itself, instead of a plain value.

    body is bytes or text (sent as UTF-8), or an iterator or asynchronous
    iterator of these, each of which is sent as it comes. status is 200 to 599.
    headers maps names to text or numbers, or to a list of them for a header that
    is repeated; it may also be pairs of name and value. If there is no
    Content-Type, text gets text/plain and bytes get none.
    """

    __slots__ = ("body", "status", "headers")

    def __init__(self, body=b"", status=200, headers=None):
        self.body = body
        self.status = status
        self.headers = {} if headers is None else headers


class File:
    """A file that was sent with a form.

    name is the field's name. filename and content_type are text from the caller,
    and not to be trusted. body is bytes.
    """

    __slots__ = ("name", "filename", "content_type", "body")

    def __init__(self, name, filename, content_type, body):
        self.name = name
        self.filename = filename
        self.content_type = content_type
        self.body = body

    def __repr__(self):
        return f"File(name={self.name!r}, filename={self.filename!r}, content_type={self.content_type!r}, {len(self.body)} bytes)"

    def text(self):
        """The file as text, decoded as Request.text is."""
        return _text(self.body, self.content_type)


class Request:
    """The caller's HTTP request, given to a parameter named `request`.

    method, root and path are text, body is bytes. root is the part of the
    caller's path that names the function; path is the rest, or "/" if there is
    none. Both are percent-decoded. target is the caller's whole path and query as
    they were sent. A body that is too large to be held whole can only be read with
    stream().
    """

    __slots__ = ("method", "target", "root", "path", "_body", "_pieces", "_raw", "_headers", "_query", "_form")

    def __init__(self, method, target, root, body, raw_headers, pieces):
        self.method = method
        self.target = target
        self.root = _unquote(root)
        self.path = _unquote(target.partition("?")[0].removeprefix(root)) or "/"
        self._body = body
        self._pieces = pieces
        self._raw = raw_headers
        self._headers = None
        self._query = None
        self._form = None

    @property
    def headers(self):
        """The caller's headers. Names are in lower case; repeated headers are joined with a comma."""
        if self._headers is None:
            self._headers = {
                name.decode("latin-1"): value.decode("latin-1")
                for name, value in self._raw.items()
                if not name.startswith(b"fob-")
            }
        return self._headers

    @property
    def query(self):
        """The query's arguments, decoded. Of a repeated name it has the last value."""
        return {name: values[-1] for name, values in self.query_all.items()}

    @property
    def query_all(self):
        """The query's arguments, decoded, as a list of all values for each name."""
        if self._query is None:
            self._query = parse_query(self.target.partition("?")[2])
        return self._query

    @property
    def form(self):
        """The fields of a form, as text. Of a repeated name it has the last value.

        It is empty if the body is not a form, and raises a ValueError if the form is malformed.
        """
        return {name: values[-1] for name, values in self.form_all.items()}

    @property
    def form_all(self):
        """The fields of a form, as a list of all texts for each name."""
        return self._parsed()[0]

    @property
    def files(self):
        """The files of a form, each a File. Of a repeated name it has the last file."""
        return {name: values[-1] for name, values in self.files_all.items()}

    @property
    def files_all(self):
        """The files of a form, as a list of all files for each name."""
        return self._parsed()[1]

    def _parsed(self):
        if self._form is None:
            from fob.form import parse  # it imports urllib.parse

            fields, files = [], []
            for name, value in parse(self.headers.get("content-type", ""), self.body):
                (files if isinstance(value, File) else fields).append((name, value))
            self._form = _grouped(fields), _grouped(files)
        return self._form

    @property
    def body(self):
        """The whole body, as bytes. If it is too large for that, it raises an error that is answered with 413."""
        if self._body is None:
            raise _TooLarge
        return self._body

    def stream(self):
        """Yields the body in pieces of bytes as they come, once.

        Waits for the next piece. Raises a ConnectionError if the body breaks off.
        """
        pieces, self._pieces = self._pieces, None
        if pieces is None:
            raise RuntimeError("the request's body is being streamed already")
        if self._body is None:
            return pieces()
        return (piece for piece in (self._body,) if piece)

    def text(self):
        """The body as text in its charset, UTF-8 if none is given, without a byte order mark.

        Raises a ValueError, answered with 400, if the body is not text in that charset.
        """
        return _text(self.body, self.headers.get("content-type", ""))

    def json(self):
        """The body, parsed as JSON. Raises a ValueError, answered with 400, if it is not JSON."""
        return _parse_json(self.text(), "the body")


def _text(data, content_type):
    from fob.text import charset_of, decode

    return decode(data, charset_of(content_type))


def _grouped(pairs):
    every = {}
    for name, value in pairs:
        every.setdefault(name, []).append(value)
    return every


def parse_query(query):
    """Reads a query in either form, `a:1,b:2` or `a=1&b=2`. Whether : or = comes first tells which. In the second form + is a blank.
    Returns a list of values for each name."""
    first = min((i for i in map(query.find, ":=") if i >= 0), default=-1)
    if first >= 0 and query[first] == ":":
        between, within = ",", ":"
    else:
        between, within, query = "&", "=", query.replace("+", " ")
    pairs = (part.partition(within) for part in query.split(between) if part)
    return _grouped((_unquote(name), _unquote(value)) for name, _, value in pairs)


def _unquote(text):
    if "%" not in text:
        return text
    # The import costs 4 ms and 0.5 MB, which only functions that need it should pay.
    from urllib.parse import unquote

    return unquote(text)
