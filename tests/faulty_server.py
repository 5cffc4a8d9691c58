"""
A chat-completion server with faults, in threads of this process or as a process: `python -m tests.faulty_server 0.1`.

It answers a question with `reply(question)`, by default the question's last word, but may first, or for ever, do
something else: `fault(question, attempt)` gives the name of one of `FAULTS`.
"""

import gzip
import json
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


FAULTS = ("429", "500", "slow", "cut", "nonsense", "html", "empty list")


class FaultyServer(ThreadingHTTPServer):
    """Listens on `url`; use as a context manager."""

    daemon_threads = True
    request_queue_size = 256

    def __init__(
        self,
        fault: Callable[[str, int], str | None] = lambda question, attempt: None,
        reply: Callable[[str], str] = lambda question: question.split()[-1],
        slow: float = 3.0,
        delay: float = 0.0,
    ):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.fault, self.reply, self.slow, self.delay = fault, reply, slow, delay
        self.lock = threading.Lock()
        #: Calls and complete answers by question.
        self.calls, self.answers = Counter(), Counter()
        self.running = self.most_running = self.sent = 0
        self.times: list[tuple[str, float]] = []
        self.requests: list[dict] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    def __enter__(self):
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *error):
        self.shutdown()
        self.server_close()

    def handle_error(self, request, client_address):
        """Clients that were killed or lost patience are expected."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *arguments):
        pass

    def do_GET(self):  # noqa: N802
        server = self.server
        found = {"calls": server.calls, "answers": server.answers, "most_running": server.most_running}
        self._send(200, json.dumps(found).encode())

    def do_POST(self):  # noqa: N802
        server, body = self.server, json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        question = body["messages"][-1]["content"]
        with server.lock:
            server.calls[question] += 1
            attempt = server.calls[question]
            server.running += 1
            server.most_running = max(server.most_running, server.running)
            server.times.append((question, time.monotonic()))
            server.requests.append({"path": self.path, "key": self.headers["Authorization"], **body})
        try:
            time.sleep(server.delay)
            self._answer(question, server.fault(question, attempt))
        finally:
            with server.lock:
                server.running -= 1

    def _answer(self, question: str, fault: str | None) -> None:
        server = self.server
        text, ended = server.reply(question), "stop"
        if fault == "429":
            return self._error(429, "rate_limit_exceeded", "slow down", {"Retry-After": "0.2"})
        if fault == "429 date":
            return self._error(429, "rate_limit_exceeded", "slow down", {"Retry-After": _http_date(2)})
        if fault == "429 for a day":
            return self._error(429, "rate_limit_exceeded", "slow down", {"Retry-After": "100000"})
        if fault == "no credit":
            return self._error(429, "insufficient_quota", "no credit")
        if fault in ("500", "503", "400", "401", "403", "404"):
            code = "context_length_exceeded" if fault == "400" else "none"
            return self._error(int(fault), code, f"refused for {self.headers['Authorization']}")
        if fault in ("endless", "endless error"):
            return self._send_endlessly(200 if fault == "endless" else 500)
        if fault == "bomb":  # 64 MiB in 64 KiB
            data, headers = gzip.compress(bytes(64 << 20)), {"Content-Encoding": "gzip"}
            return self._send(200, data, headers)
        if fault == "deep":
            return self._send(200, b"[" * 100_000)
        if fault == "nonsense":
            return self._send(200, b'{"choices": [{"mess')
        if fault == "html":
            return self._send(200, b"<html>a proxy's greeting</html>", kind="text/html")
        if fault == "empty list":
            return self._send(200, b'{"choices": []}')
        if fault == "slow":
            time.sleep(server.slow)
        if fault == "filter":
            text, ended = None, "content_filter"
        if fault == "empty":
            text, ended = "", "length"
        usage = {"prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 12}
        choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": ended}
        answer = {"id": "x", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]}
        if fault == "absurd usage":
            usage = {"prompt_tokens": -5, "completion_tokens": 10**12, "total_tokens": "many"}
        if fault == "usage in words":
            usage = {"prompt_tokens": "many", "completion_tokens": [1]}
        data = json.dumps(answer | ({} if fault == "no usage" else {"usage": usage})).encode()
        if fault == "drip":
            return self._send(200, data, pause=0.05)
        if fault == "cut":  # the connection ends in the middle of the body
            self.close_connection = True
            return self._send(200, data[: len(data) // 2], length=len(data))
        self._send(200, data)
        with server.lock:
            server.answers[question] += 1

    def _error(self, status: int, code: str, message: str, headers: dict | None = None) -> None:
        self._send(status, json.dumps({"error": {"code": code, "message": message}}).encode(), headers)

    def _send_endlessly(self, status: int) -> None:
        self._send(status, b'{"choices": "', length=1 << 40)
        while True:
            self.wfile.write(bytes(1 << 16))
            with self.server.lock:
                self.server.sent += 1 << 16

    def _send(self, status, data, headers=None, length=None, kind="application/json", pause=0.0) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data) if length is None else length))
        self.end_headers()
        for part in [data] if not pause else [data[place : place + 1] for place in range(len(data))]:
            self.wfile.write(part)
            time.sleep(pause)


def _http_date(seconds: float) -> str:
    return time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + seconds))


def first_calls_fail(share: float) -> Callable[[str, int], str | None]:
    """A fault for this share of the questions, each at its first call; the same ones each time."""

    def fault(question: str, attempt: int) -> str | None:
        draw = random.Random(question)
        return draw.choice(FAULTS) if draw.random() < share and attempt == 1 else None

    return fault


if __name__ == "__main__":
    with FaultyServer(first_calls_fail(float(sys.argv[1])), delay=float(sys.argv[2])) as served:
        print(served.url, flush=True)
        sys.stdin.read()  # until the parent goes
