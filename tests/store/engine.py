"""An engine whose tokens are known, and that holds what it is told to hold. Standard library only."""

import http.server
import json
import threading

PROMPT_TOKENS, COMPLETION_TOKENS = 7, 3
TOKENS = PROMPT_TOKENS + COMPLETION_TOKENS


class Engine:
    """Answers each prompt at once, but `hold` only once it is let go."""

    def __init__(self):
        self.held, self.changed, self.is_open = 0, threading.Condition(), False
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), self.handler())
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def hold(self):
        with self.changed:
            self.held += 1
            self.changed.notify_all()
            self.changed.wait_for(lambda: self.is_open)

    def let_go(self):
        with self.changed:
            self.is_open = True
            self.changed.notify_all()

    def handler(self):
        engine = self

        class Handler(http.server.BaseHTTPRequestHandler):
            """One connection."""

            protocol_version = "HTTP/1.1"

            def answer(self, content):
                body = json.dumps(content).encode()
                self.send_response(200)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            # pylint: disable=invalid-name
            def do_GET(self):
                self.answer({"object": "list", "data": [{"id": "echo", "object": "model", "created": 0,
                                                         "owned_by": "test"}]})

            def do_POST(self):
                asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
                if asked["prompt"] == "hold":
                    engine.hold()
                usage = {"prompt_tokens": PROMPT_TOKENS, "completion_tokens": COMPLETION_TOKENS,
                         "total_tokens": TOKENS}
                choice = {"index": 0, "text": "a b c", "finish_reason": "stop", "logprobs": None}
                self.answer({"id": "cmpl-1", "object": "text_completion", "created": 0,
                             "model": asked["model"], "choices": [choice], "usage": usage})

            def log_message(self, *_):
                pass

        return Handler
