"""The explorer's server: on 127.0.0.1, behind a token, from Python's own library."""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, unquote, urlsplit

from cryohydra.errors import UserError
from cryohydra.explorer.guard import HEADERS, Guard
from cryohydra.explorer.http import Refusal, Reply, Request, Route, Router

LOG = logging.getLogger("cryohydra.explorer")
_SECONDS_TO_WAIT = 60.0
"""For the next bytes of a request."""
# A redirect would be a step from wherever the address was opened, to which a browser gives no strict cookie.
_ENTRANCE = (
    b'<!doctype html><meta http-equiv="refresh" content="0;url=/"><link rel="icon" href="data:,">'
    b'<title>Hydra</title><a href="/">Explorer</a>'
)


class ExplorerServer(ThreadingHTTPServer):
    """Answers the routes it is given to those that its guard lets in.

    Raises:
        UserError: If the port is taken.
    """

    daemon_threads = True
    request_queue_size = 128
    """A browser asks for all files of the page at once; the library's five would have some refused."""

    def __init__(self, routes: list[Route], port: int = 0):
        self.router, self.guard = Router(routes), Guard()
        try:
            super().__init__(("127.0.0.1", port), _Conversation)
        except OSError as error:
            raise UserError(
                f"Port {port} cannot be used ({error.strerror}); leave --port out to take any that is free."
            ) from error

    @property
    def address(self) -> str:
        """Where to open the explorer, with the token."""
        return f"http://127.0.0.1:{self.server_address[1]}/?token={self.guard.token}"

    def handle_error(self, request: object, client_address: object) -> None:
        """Note what went wrong with a connection; browsers close some early, which is no fault."""
        LOG.debug("A connection from %s ended early.", client_address, exc_info=True)


class _Conversation(BaseHTTPRequestHandler):
    server: ExplorerServer
    server_version, sys_version = "drgnai", ""
    timeout = _SECONDS_TO_WAIT

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What the library itself refuses, such as other methods, said as everything else."""
        self._send(_refused(Refusal(code, f"{message or 'The request cannot be answered'}.")))

    def log_message(self, format: str, *args: object) -> None:
        """To the log, without the token."""
        LOG.debug("%s %s", self.command, urlsplit(self.path).path)

    def _answer(self) -> None:
        try:
            reply = self._reply()
        except Refusal as refusal:
            reply = _refused(refusal)
        except UserError as error:
            reply = _refused(Refusal(422, str(error)))
        except Exception:
            LOG.exception("The explorer could not answer %s", urlsplit(self.path).path)
            reply = _refused(Refusal(500, "The explorer failed; what happened is in the terminal where it runs."))
        self._send(reply)

    def _reply(self) -> Reply:
        guard, parts = self.server.guard, urlsplit(self.path)
        guard.check_place(self.headers)
        query = dict(parse_qsl(parts.query))
        if self.command == "GET" and parts.path == "/" and guard.is_token(query.get("token", "")):
            return Reply("text/html; charset=utf-8", _ENTRANCE, {"Set-Cookie": guard.cookie()})
        guard.check_token(self.headers)
        route, named = self.server.router.find(self.command, parts.path)
        named = {name: unquote(value) for name, value in named.items()}
        return route.handler(Request(named, query, self._body(route)))

    def _body(self, route: Route) -> bytes:
        if self.headers.get("Transfer-Encoding") is not None:
            raise Refusal(411, "The request has no length; send it in one piece, with Content-Length.")
        given = self.headers.get("Content-Length", "0")
        if not given.isascii() or not given.isdigit():
            raise Refusal(400, "Content-Length is not a number.")
        length = int(given)
        if length > route.most_bytes:
            raise Refusal(413, f"The request has {length} bytes; wanted {route.most_bytes} at most.")
        if route.takes and self.headers.get_content_type() != route.takes:
            raise Refusal(415, f"The body is {self.headers.get_content_type()}; wanted {route.takes}.")
        body = self.rfile.read(length)
        if len(body) < length:
            raise Refusal(400, f"The request ended after {len(body)} of {length} bytes.")
        return body

    def _send(self, reply: Reply) -> None:
        self.send_response(reply.status)
        for name, value in {**HEADERS, "Content-Type": reply.content_type, **reply.headers}.items():
            self.send_header(name, value)
        if isinstance(reply.body, bytes):
            self.send_header("Content-Length", str(len(reply.body)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        if self.command == "HEAD":
            return
        for piece in [reply.body] if isinstance(reply.body, bytes) else reply.body:
            self.wfile.write(piece)


def _refused(refusal: Refusal) -> Reply:
    return Reply("text/plain; charset=utf-8", f"{refusal}\n".encode(), status=refusal.status)


@contextmanager
def serving(server: ExplorerServer) -> Iterator[ExplorerServer]:
    """Answer in the background while the block lasts."""
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
