"""A web app that has part of its code run as a function, by the dispatcher beside it."""
import http.server
import json
import pathlib
import time
import urllib.error
import urllib.parse
import urllib.request

FOB = "http://localhost:9999"
CODE = pathlib.Path(__file__).with_name("greet.py").read_bytes()


def register():
    """Registers the function greet, or makes this its newest version.

    The dispatcher starts beside us, in any order, and its first start builds
    images: until it is there and ready, wait."""
    request = urllib.request.Request(FOB + "/api/functions/greet?lang=python", CODE, method="PUT")
    while True:
        try:
            return urllib.request.urlopen(request, timeout=60).read()
        except urllib.error.HTTPError as e:
            if e.code != 503:
                raise SystemExit(f"cannot register greet: {e.code} {e.read().decode()}")
        except OSError:
            pass
        time.sleep(1)


class App(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        query = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)
        name = urllib.parse.quote(query.get("name", ["world"])[-1])
        try:
            with urllib.request.urlopen(f"{FOB}/api/call/greet?name={name}", timeout=60) as answer:
                status, text = 200, json.load(answer)["result"]
        except OSError as e:
            status, text = 502, f"the function did not answer: {e}"
        self.send_response(status)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.end_headers()
        self.wfile.write(text.encode() + b"\n")


register()
print("serving on port 8000", flush=True)
http.server.ThreadingHTTPServer(("", 8000), App).serve_forever()
