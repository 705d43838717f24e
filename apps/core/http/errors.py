"""One body for every error, whatever raised it and wherever in the stack."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

import structlog
from django.conf import settings
from django.core import exceptions as django_errors
from django.core.signals import got_request_exception
from django.db import InterfaceError, OperationalError
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import render
from django.template.loader import render_to_string
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views import csrf, defaults
from rest_framework import exceptions as drf_errors
from rest_framework.response import Response
from rest_framework.views import set_rollback

from apps.core import correlation
from apps.core.errors import DomainError, FieldError, Unavailable, ValidationFailed
from apps.core.http import brand
from apps.core.http.rendering import render_json

logger = structlog.get_logger(__name__)

PROBLEM_JSON = "application/problem+json"
_API_PATH = re.compile(
    r"/(?:api|v1|auth|orgs|invites|healthz|readyz|metrics|monitoring|payments|\.well-known)(?:/|$)"
)

# The names of one predecessor's clients, frozen; where it had none, the nearest.
_COMPATIBLE_CODES = {
    400: "BAD_REQUEST",
    401: "UNAUTHORIZED",
    402: "PAYMENT_REQUIRED",
    403: "FORBIDDEN",
    404: "NOT_FOUND",
    405: "METHOD_NOT_SUPPORTED",
    409: "CONFLICT",
    412: "PRECONDITION_FAILED",
    413: "PAYLOAD_TOO_LARGE",
    415: "UNSUPPORTED_MEDIA_TYPE",
    422: "BAD_REQUEST",
    428: "BAD_REQUEST",
    429: "TOO_MANY_REQUESTS",
}
_CODES = {
    400: "invalid_request",
    401: "token_invalid",
    403: "insufficient_permissions",
    404: "not_found",
    405: "method_not_allowed",
    413: "payload_too_large",
    415: "unsupported_media_type",
    429: "rate_limited",
}


_MESSAGES = {
    400: gettext_lazy("The request cannot be read."),
    403: gettext_lazy("This credential is not allowed to do that."),
    404: gettext_lazy("Nothing was found here."),
    405: gettext_lazy("This path does not take this method."),
    413: gettext_lazy("The request body is too large."),
    415: gettext_lazy("Send the body as application/json."),
}
# Django's own exceptions; DRF's bring their status.
_STANDARD: tuple[tuple[tuple[type[Exception], ...], int], ...] = (
    ((Http404,), 404),
    ((django_errors.PermissionDenied,), 403),
    ((django_errors.RequestDataTooBig,), 413),
    ((django_errors.BadRequest, django_errors.SuspiciousOperation), 400),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """An error on its way out."""

    status: int
    code: str
    message: str
    details: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)


def is_api(request: HttpRequest) -> bool:
    """Return whether machines call this path, so that its errors are JSON."""
    return _API_PATH.match(request.path) is not None


def exception_handler(error: Exception, context: Mapping[str, Any]) -> Response:
    """Turn whatever a view raised into the error body; DRF calls this."""
    request: HttpRequest = context["request"]._request
    set_rollback()
    problem = problem_of(error)
    if problem is None:
        got_request_exception.send(sender=exception_handler, request=request)  # Logs it, with the traceback.
        problem = _internal_error()
    as_problem_json = _wants_problem_json(request)
    return Response(
        body_of(problem, request, as_problem_json=as_problem_json),
        status=problem.status,
        headers=dict(problem.headers),
        content_type=PROBLEM_JSON if as_problem_json else None,
    )


def respond(request: HttpRequest, problem: Problem) -> HttpResponse:
    """Return the error as a plain Django response, for what happens outside of a view."""
    as_problem_json = _wants_problem_json(request)
    return HttpResponse(
        render_json(body_of(problem, request, as_problem_json=as_problem_json)),
        status=problem.status,
        headers=dict(problem.headers),
        content_type=PROBLEM_JSON if as_problem_json else "application/json",
    )


def body_of(problem: Problem, request: HttpRequest, *, as_problem_json: bool = False) -> dict[str, Any]:
    """Return the body of an error as `API.md` has it, or as RFC 9457 has it."""
    correlation_id = getattr(request, "correlation_id", None) or correlation.current()
    if as_problem_json:
        return {
            "type": "about:blank",
            "title": HTTPStatus(problem.status).phrase,
            "status": problem.status,
            "detail": problem.message,
            "code": problem.code,
            "correlation_id": correlation_id,
            "details": problem.details,
        }
    detail: str | list[dict[str, Any]] = problem.message
    if problem.status == HTTPStatus.UNPROCESSABLE_ENTITY:
        detail = [
            {"loc": ["body", *_location(row["path"])], "msg": row["message"], "type": row["code"]}
            for row in problem.details.get("fields", ())
        ] or [{"loc": ["body"], "msg": problem.message, "type": problem.code}]
    return {
        "code": problem.code,
        "message": problem.message,
        "correlation_id": correlation_id,
        "details": problem.details,
        "detail": detail,
        "error": {
            "message": problem.message,
            "code": _COMPATIBLE_CODES.get(problem.status, "INTERNAL_SERVER_ERROR"),
            "httpStatus": problem.status,
        },
    }


def problem_of(error: BaseException) -> Problem | None:
    """Return what to answer to an exception, or None if it is a bug."""
    match error:
        case drf_errors.ValidationError():
            return problem_of(ValidationFailed(fields=flatten(error.detail)))
        case DomainError():
            return Problem(
                status=error.http_status,
                code=error.code,
                message=str(error),
                details=error.details,
                headers=_headers_of(error),
            )
        case OperationalError() | InterfaceError():
            # Also a lock or a statement that took too long: nothing was written, trying again may help.
            logger.warning("database_unavailable", reason=str(error))
            return problem_of(Unavailable())
        case drf_errors.APIException():
            return _standard(error.status_code, str(error.detail))
        case Exception():
            return next((_standard(status) for kinds, status in _STANDARD if isinstance(error, kinds)), None)
        case _:
            return None


def flatten(detail: Any, path: str = "") -> list[FieldError]:
    """Return DRF's nested messages as one row per problem, with dotted paths."""
    if isinstance(detail, Mapping):
        rows = []
        for name, inner in detail.items():
            plain = str(name) not in {"non_field_errors", "__all__"}
            rows += flatten(inner, ".".join(filter(None, [path, str(name) if plain else ""])))
        return rows
    if isinstance(detail, list) and any(isinstance(inner, (Mapping, list)) for inner in detail):
        return [
            row
            for index, inner in enumerate(detail)
            for row in flatten(inner, f"{path}.{index}" if path else str(index))
        ]
    messages = detail if isinstance(detail, list) else [detail]
    return [
        FieldError(path=path, code=str(getattr(message, "code", "invalid")), message=str(message))
        for message in messages
    ]


# --- What Django calls for errors outside of views ---


def page_not_found(request: HttpRequest, exception: Exception) -> HttpResponseBase:
    """Answer to an unknown path."""
    if is_api(request):
        return respond(request, _standard(404))
    return defaults.page_not_found(request, exception)


def permission_denied(request: HttpRequest, exception: Exception) -> HttpResponseBase:
    """Answer to a refused page."""
    if is_api(request):
        return respond(request, _standard(403))
    return defaults.permission_denied(request, exception)


def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponseBase:
    """Answer to a form whose token is missing or old."""
    return respond(request, _standard(403)) if is_api(request) else csrf.csrf_failure(request, reason)


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponseBase:
    """Answer to a request that Django refuses to read."""
    if is_api(request):
        return respond(request, problem_of(exception) or _standard(400))
    return render(request, "400.html", status=400)


def server_error(request: HttpRequest) -> HttpResponseBase:
    """Answer to a bug, or to a database that does not answer."""
    # Django calls this while it handles the exception.
    problem = problem_of(sys.exception() or Exception()) or _internal_error()
    if is_api(request):
        return respond(request, problem)
    # Whatever failed may be what a context processor asks, so the page gets what needs nothing.
    page = render_to_string(f"{problem.status}.html", brand.facts())
    return HttpResponse(page, status=problem.status, headers=dict(problem.headers))


def _standard(status: int, message: str = "") -> Problem:
    """Return the problem of a status; a message is used where we have none of our own."""
    known = str(_MESSAGES.get(status, message))
    return Problem(status=status, code=_CODES.get(status, "invalid_request"), message=known)


def _internal_error() -> Problem:
    message = _("Something went wrong on our side. Quote the correlation id when you report it.")
    return Problem(status=500, code="internal_error", message=message)


def _headers_of(error: DomainError) -> dict[str, str]:
    headers = {}
    if error.http_status == HTTPStatus.UNAUTHORIZED:
        realm = urlsplit(settings.PUBLIC_URL).hostname or "countinghouse"
        headers["WWW-Authenticate"] = f'Bearer realm="{realm}"'
        if error.code != "token_missing":
            headers["WWW-Authenticate"] += ', error="invalid_token"'
    if error.http_status == HTTPStatus.SERVICE_UNAVAILABLE:
        headers["Retry-After"] = "1"
    if (seconds := error.details.get("retry_after")) is not None:
        headers["Retry-After"] = str(seconds)
    return headers


def _location(path: str) -> list[str | int]:
    return [int(part) if part.isdecimal() else part for part in path.split(".") if part]


def _wants_problem_json(request: HttpRequest) -> bool:
    return PROBLEM_JSON in request.headers.get("Accept", "")
