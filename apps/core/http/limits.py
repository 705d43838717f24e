"""What a request may weigh, that it is not compressed, and that it comes by HTTPS where the operator says so."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from typing import IO

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext as _

from apps.core.http.errors import Problem, respond

# Closing the connection on a client that still sends would look to it like a network failure.
DRAIN_BYTES_MAX = 32 * 1024 * 1024
_CHUNK = 64 * 1024
_INGESTION = "/usage/events"
_WEBHOOK = "/payments/webhook"
_EXEMPT_FROM_HTTPS = ("/healthz", "/readyz")


class BodyLimitMiddleware:
    """Refuse bodies over the limit or compressed before anything reads them, and plain HTTP under REQUIRE_HTTPS."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if settings.REQUIRE_HTTPS and not request.is_secure() and request.path not in _EXEMPT_FROM_HTTPS:
            message = _("Use HTTPS. If this request carried a credential, replace it: it travelled in clear.")
            return respond(request, Problem(status=403, code="https_required", message=message))
        limit: int = settings.BODY_BYTES_MAX
        if request.path.endswith(_INGESTION):
            limit = settings.USAGE_BODY_BYTES_MAX
        elif request.path.endswith(_WEBHOOK):
            limit = settings.WEBHOOK_BODY_BYTES_MAX
        if _is_too_large(request, limit):
            message = _("The request body is larger than %(limit)d bytes.") % {"limit": limit}
            problem = Problem(
                status=413, code="payload_too_large", message=message, details={"limit_bytes": limit}
            )
            return respond(request, problem)
        if _is_compressed(request):
            message = _("Send the body as it is, without Content-Encoding.")
            return respond(request, Problem(status=415, code="unsupported_media_type", message=message))
        return self.get_response(request)


def _is_too_large(request: HttpRequest, limit: int) -> bool:
    stream = request.META.get("wsgi.input")
    length = request.META.get("CONTENT_LENGTH") or ""
    if length.isdecimal():
        if int(length) <= limit:
            return False
        _drain(stream, min(int(length), DRAIN_BYTES_MAX))
        return True
    if not request.META.get("wsgi.input_terminated") or stream is None:
        return False
    # A chunked body has no length beforehand and Django would take it for empty, so it is read here.
    body = stream.read(limit + 1)
    if len(body) > limit:
        drained = len(body)
        while drained < DRAIN_BYTES_MAX and (chunk := stream.read(_CHUNK)):
            drained += len(chunk)
        return True
    request.META["CONTENT_LENGTH"] = str(len(body))
    request._stream = BytesIO(body)
    return False


def _is_compressed(request: HttpRequest) -> bool:
    if request.headers.get("Content-Encoding", "identity").strip().lower() in ("", "identity"):
        return False
    # Read as text it would be wrong in every line.
    text = request.META.get("CONTENT_LENGTH") or ""
    length = int(text) if text.isdecimal() else 0
    _drain(request.META.get("wsgi.input"), length)
    return length > 0


def _drain(stream: IO[bytes] | None, remaining: int) -> None:
    while remaining > 0 and stream and (chunk := stream.read(min(_CHUNK, remaining))):
        remaining -= len(chunk)
