"""A fake engine for images: there is no small real one. It speaks OpenAI's contract for `/v1/images/generations`.

The picture is one pixel whose colour is the beginning of the prompt's SHA-256, so that an answer tells its prompt.
Prints one line, `images listening on http://127.0.0.1:PORT pid PID`, and ends on SIGTERM. Needs Python alone.
"""

import base64
import hashlib
import json
import os
import re
import struct
import zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

MODEL = "picture"


def png(prompt):
    """A PNG of one pixel in the prompt's colour."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    colour = hashlib.sha256(prompt.encode()).digest()[:3]
    header = struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)
    pixels = zlib.compress(b"\0" + colour)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, status, body, kind="application/json"):
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def refuse(self, status, message, param=None):
        error = {"message": message, "type": "invalid_request_error", "param": param, "code": None}
        self.answer(status, {"error": error})

    def do_GET(self):
        if self.path == "/v1/models":
            model = {"id": MODEL, "object": "model", "created": 0, "owned_by": "tests"}
            self.answer(200, {"object": "list", "data": [model]})
        else:
            self.refuse(404, "no such path")

    def do_POST(self):
        text = self.rfile.read(int(self.headers["content-length"]))
        if self.path != "/v1/images/generations":
            return self.refuse(404, "no such path")
        asked = json.loads(text)
        if asked.get("model") != MODEL:
            return self.refuse(404, "no such model", "model")
        if not isinstance(asked.get("prompt"), str):
            return self.refuse(400, "no prompt", "prompt")
        if not re.fullmatch("[0-9]+x[0-9]+|auto", asked.get("size") or "auto"):
            return self.refuse(400, "no size", "size")
        picture = png(asked["prompt"])
        if asked.get("response_format") == "b64_json":
            image = {"b64_json": base64.b64encode(picture).decode()}
        else:
            image = {"url": f"http://pictures.invalid/{hashlib.sha256(picture).hexdigest()}.png"}
        self.answer(200, {"created": 1_700_000_000, "data": [image] * (asked.get("n") or 1)})


def main():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print(f"images listening on http://127.0.0.1:{server.server_address[1]} pid {os.getpid()}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
