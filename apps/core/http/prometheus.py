"""How everything keeps up, for Prometheus."""

from __future__ import annotations

from django.conf import settings
from django.http import HttpResponse
from django.utils import timezone
from drf_spectacular.utils import extend_schema
from prometheus_client import CONTENT_TYPE_LATEST

from apps.core import metrics
from apps.core.http.views import PUBLIC, ApiView, Request, Rule
from apps.core.permissions import IntegrationScope


@extend_schema(exclude=True)
class Metrics(ApiView):
    """Backlogs, delays and refusals; with METRICS_PUBLIC for anybody who can reach it."""

    permission = IntegrationScope.METRICS_READ

    def rule_for(self, method: str) -> Rule:
        return PUBLIC if settings.METRICS_PUBLIC else super().rule_for(method)

    def get(self, request: Request) -> HttpResponse:
        return HttpResponse(metrics.render(timezone.now()), content_type=CONTENT_TYPE_LATEST)
