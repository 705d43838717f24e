"""Where Stripe calls: the exact bytes are read before anything parses them, and answered once they are stored."""

from __future__ import annotations

from django.utils import timezone
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from apps.core.http.views import PUBLIC, ApiView, RateClass
from apps.payments import services as payments


@extend_schema(exclude=True)
class StripeWebhook(ApiView):
    """Take an event that Stripe signed. 200: stored, now or before; 400: not verifiable, nothing stored; 503: later."""

    permission = PUBLIC
    rate_class = RateClass.EXEMPT  # Stripe sends what happened, however much that is.

    def post(self, request: Request) -> Response:
        is_new = payments.receive(
            body=request._request.body,
            signature=request.headers.get("Stripe-Signature", ""),
            now=timezone.now(),
        )
        return Response({"received": True, "duplicate": not is_new})
