"""A file server on this machine, for tests of downloads over a real connection."""

import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Handler(http.server.BaseHTTPRequestHandler):
    """Send the bytes that the server has under a path; half of them if the path is in `cut`."""

    def do_GET(self):
        body = self.server.files.get(self.path)
        self.server.asked.append(self.path)
        if body is None:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if self.path in self.server.cut else body)

    def log_message(self, *args):
        pass


@contextmanager
def serving() -> Iterator[http.server.ThreadingHTTPServer]:
    """Run a server with `url`, `files` (path to bytes), `cut` (paths that break off) and `asked` (paths)."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        running.files, running.cut, running.asked = {}, set(), []
        running.url = f"http://127.0.0.1:{running.server_port}"
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        try:
            yield running
        finally:
            running.shutdown()
            thread.join()
