"""HTTP for the sandbox: the API under /v1, the hosted pages, the control page, and the look of ours."""

from __future__ import annotations

import json
import mimetypes
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from apps.payments.sandbox.api import Answer, Api, Dropped
from apps.payments.sandbox.engine import Engine
from apps.payments.sandbox.errors import Refused
from apps.payments.sandbox.pages import Pages, Redirect
from apps.payments.sandbox.store import Store
from apps.payments.sandbox.webhooks import Deliverer, Send
from config.embedded.folders import ROOT

API_VERSION = "2026-10-28.endive"
_BODY_BYTES_MAX = 1024 * 1024
_STATIC = ROOT / "static"
_POLICY = "default-src 'none'; style-src 'self'; font-src 'self'; img-src 'self'; frame-ancestors 'none'"
_LOCAL_NAMES = {"127.0.0.1", "localhost", "::1"}


class Sandbox:
    """One running sandbox. Without a webhook address it keeps its events to itself.

    port: 0 takes a free one.
    """

    def __init__(
        self,
        *,
        port: int,
        secret_key: str,
        webhook_secret: str,
        webhook_url: str = "",
        path: Path | None = None,
        send: Send | None = None,
    ) -> None:
        self.store = Store(path)
        self._server = _Server(("127.0.0.1", port), _Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self.engine = Engine(
            self.store, base_url=self.url, api_version=API_VERSION, webhooks=bool(webhook_url or send)
        )
        if webhook_url:
            self.engine.set_endpoint(webhook_url)
        self.api = Api(self.engine, secret_key=secret_key)
        self.deliverer = (
            Deliverer(self.store, url=webhook_url, secret=webhook_secret, send=send)
            if webhook_url or send
            else None
        )
        self.pages = Pages(self.engine, self.api, self.deliverer)
        self._server.sandbox = self

    def serve(self) -> None:
        """Answer requests, and deliver webhooks if there is an address, until `stop`."""
        if self.deliverer and self.deliverer.url:
            self.deliverer.start()
        self._server.serve_forever(poll_interval=0.02)

    def stop(self) -> None:
        """End `serve`, from another thread."""
        if self.deliverer:
            self.deliverer.stop()
        self._server.shutdown()
        self._server.server_close()
        self.store.close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64
    sandbox: Sandbox


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  The base class names it so.
        """Say nothing: the control page shows what happened."""

    def do_GET(self) -> None:
        self._handle("GET", b"")

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        if length > _BODY_BYTES_MAX:
            self.close_connection = True
            self._write(413, "text/plain", b"Too large.")
            return
        self._handle("POST", self.rfile.read(length))

    def _handle(self, method: str, body: bytes) -> None:
        parts = urlsplit(self.path)
        # A foreign name that resolves to this machine would let another site use the pages.
        if urlsplit(f"//{self.headers.get('Host', '')}").hostname not in _LOCAL_NAMES:
            self._write(421, "text/plain", b"Ask for 127.0.0.1.")
            return
        try:
            if parts.path.startswith("/v1/"):
                headers = dict(self.headers.items())
                answer = self.server.sandbox.api.answer(method, parts.path, parts.query, headers, body)
                self._json(answer)
            elif parts.path.startswith("/control/api/"):
                self._control_api(method, parts.path.removeprefix("/control/api/"), body)
            elif parts.path.startswith("/static/"):
                self._static(parts.path.removeprefix("/static/"))
            else:
                self._page(method, parts.path, body)
        except Dropped:
            self.close_connection = True
        except Redirect as redirect:
            self._write(303, "text/plain", b"", Location=redirect.url)
        except Refused as refusal:
            self._json(Answer(status=refusal.status, body=refusal.body))

    def _page(self, method: str, path: str, body: bytes) -> None:
        pages = self.server.sandbox.pages
        form = dict(parse_qsl(body.decode(), keep_blank_values=True)) if method == "POST" else None
        match path.strip("/").split("/"):
            case ["c", "pay", session_id]:
                page = pages.checkout(session_id, form)
            case ["3ds", intent_id]:
                page = pages.bank(intent_id, form)
            case ["receipts", charge_id]:
                page = pages.receipt(charge_id)
            case ["control", verb] if form is not None:
                try:
                    pages.act(verb, form)
                except Refused as refusal:
                    page = pages.control(problem=refusal.body["error"]["message"])
                    self._write(refusal.status, "text/html; charset=utf-8", page.encode())
                    return
                raise Redirect("/")
            case [""]:
                page = pages.control()
            case _:
                self._write(404, "text/plain", b"Nothing was found here.")
                return
        self._write(200, "text/html; charset=utf-8", page.encode())

    def _control_api(self, method: str, verb: str, body: bytes) -> None:
        if method != "POST":
            self._write(405, "text/plain", b"POST a JSON object.")
            return
        # JSON only: a form of a foreign page cannot send it.
        if self.headers.get_content_type() != "application/json":
            self._write(415, "text/plain", b"Send application/json.")
            return
        fields = json.loads(body or b"{}")
        self._json(Answer(status=200, body=self.server.sandbox.pages.act(verb, fields)))

    def _static(self, name: str) -> None:
        path = (_STATIC / name).resolve()
        if not path.is_relative_to(_STATIC) or not path.is_file():
            self._write(404, "text/plain", b"Nothing was found here.")
            return
        kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
        self._write(200, kind, path.read_bytes())

    def _json(self, answer: Answer) -> None:
        headers = dict(answer.headers)
        kind = headers.pop("Content-Type")
        self._write(answer.status, kind, json.dumps(answer.body, indent=2).encode(), **headers)

    def _write(self, status: int, kind: str, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Security-Policy", _POLICY)
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(body)
