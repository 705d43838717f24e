"""The headers that tell every caller of the API what is left."""

from __future__ import annotations

from collections.abc import Callable

from django.conf import settings
from django.http import HttpRequest, HttpResponse

from apps.core.http.errors import is_api, problem_of, respond
from apps.limits import requests
from apps.limits.services import RateLimited


class RateLimitMiddleware:
    """Put X-RateLimit-Limit, -Remaining and -Reset on every answer of the API that counts.

    A request that ended before any view counted it (a path that does not exist, a body too large) counts here, as
    one of its address.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self.get_response(request)
        if (
            not settings.RATE_LIMITS_ENABLED
            or getattr(request, "rate_limit_exempt", False)
            or not is_api(request)
        ):
            return response
        if requests.verdict_of(request) is None:
            try:
                requests.limit_anonymous(request)
            except RateLimited as error:
                problem = problem_of(error)
                assert problem is not None, "a refusal is told, not logged"
                response = respond(request, problem)
        found = requests.verdict_of(request)
        assert found is not None, "counted above at the latest"
        response.headers["X-RateLimit-Limit"] = str(found.policy.per_minute)
        response.headers["X-RateLimit-Remaining"] = str(found.remaining)
        response.headers["X-RateLimit-Reset"] = str(found.whole_at)
        return response
