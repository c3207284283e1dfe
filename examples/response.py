# A Response is answered as it is, instead of as {"result": …}.
# curl -i "$FOB/api/call/$ID?name=Wren"
from html import escape

from fob import Response


def callme(name="you"):
    return Response(f"<h1>Hello {escape(name)}</h1>", 200, {"Content-Type": "text/html; charset=utf-8"})
