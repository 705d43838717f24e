"""The correlation id of a request."""

from __future__ import annotations

from collections.abc import Callable

import structlog
from django.http import HttpRequest, HttpResponse

from apps.core import correlation
from apps.core.http.address import client_address

HEADER = "X-Correlation-Id"


class CorrelationMiddleware:
    """Give each request a correlation id, its own if it brought one, and echo it in the answer."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        structlog.contextvars.clear_contextvars()
        correlation_id = correlation.accept(request.headers.get(HEADER, ""))
        # Also kept here: the request log empties the context before the outer middleware is done.
        request.correlation_id = correlation_id  # type: ignore[attr-defined]  # `correlation_of` reads it.
        correlation.bind(correlation_id)
        structlog.contextvars.bind_contextvars(address=client_address(request))
        response = self.get_response(request)
        response[HEADER] = correlation_id
        if request.method == "HEAD" and not response.streaming:
            # Content-Length stays that of GET; the server would drop the body with a warning.
            response.content = b""
        return response
