"""REST: usage events in."""

from __future__ import annotations

from typing import Any

from django.utils import timezone
from drf_spectacular.utils import OpenApiExample, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from apps.core.http.views import ApiView, RateClass
from apps.core.permissions import IntegrationScope
from apps.metering import services as metering
from apps.metering.models import EventType


class EventDataInput(serializers.Serializer[Any]):
    """What an event reports; `started` needs sku, region and gpus, `resized` gpus, `usage.recorded` an interval or a
    meter with a quantity."""

    organization = serializers.CharField(help_text="Id, slug or retired slug.")
    project = serializers.CharField(required=False, help_text="Slug or id.")
    sku = serializers.CharField(required=False)
    region = serializers.CharField(required=False)
    gpus = serializers.DecimalField(
        required=False, max_digits=12, decimal_places=3, help_text="To three decimals."
    )
    api_key = serializers.CharField(required=False, help_text="Public id of the key that asked for it.")
    labels = serializers.DictField(required=False, child=serializers.CharField())
    started_at = serializers.DateTimeField(required=False)
    ended_at = serializers.DateTimeField(required=False)
    meter = serializers.CharField(required=False)
    quantity = serializers.DecimalField(required=False, max_digits=19, decimal_places=6)


class EventInput(serializers.Serializer[Any]):
    """A CloudEvent 1.0; (source, id) is its identity for ever."""

    specversion = serializers.ChoiceField(choices=["1.0"])
    id = serializers.CharField()
    source = serializers.CharField()  # type: ignore[assignment]  # Field has an attribute of this name.
    type = serializers.ChoiceField(choices=EventType.choices)
    subject = serializers.CharField(
        required=False, help_text="The allocation; required but for usage.recorded."
    )
    time = serializers.DateTimeField(
        required=False, help_text="Required unless `ended_at` says when. At most milliseconds."
    )
    data = EventDataInput()  # type: ignore[assignment]  # Serializer has an attribute of this name.


class RejectionOutput(serializers.Serializer[Any]):
    """One event that was not taken."""

    index = serializers.IntegerField(help_text="Place in the batch, from 0.")
    id = serializers.CharField(allow_null=True)
    code = serializers.CharField()
    message = serializers.CharField()


class OutcomeOutput(serializers.Serializer[Any]):
    """What became of the events; each is in exactly one of the three counts."""

    accepted = serializers.IntegerField()
    duplicates = serializers.IntegerField()
    rejected = serializers.IntegerField()
    errors = RejectionOutput(many=True)  # type: ignore[assignment]  # Serializer has an attribute of this name.


_EVENT = {"$ref": "#/components/schemas/EventInputRequest"}


class UsageEventsCreate(ApiView):
    """Usage events, one, an array or one a line; each is judged by itself."""

    permission = IntegrationScope.USAGE_WRITE
    rate_class = RateClass.INGESTION

    @extend_schema(
        operation_id="usage_events_create",
        request={
            "application/json": {"oneOf": [_EVENT, {"type": "array", "items": _EVENT}]},
            "application/cloudevents+json": EventInput,
            "application/cloudevents-batch+json": EventInput(many=True),
            "application/x-ndjson": {"type": "string", "description": "An event a line."},
        },
        responses={200: OutcomeOutput},
        examples=[
            OpenApiExample(
                "An allocation starts",
                request_only=True,
                value={
                    "specversion": "1.0",
                    "id": "alloc-1-started",
                    "source": "provisioner-1",
                    "type": "allocation.started",
                    "subject": "alloc-1",
                    "time": "2026-01-31T12:00:00Z",
                    "data": {"organization": "demo", "sku": "h100", "region": "eu-north1", "gpus": "8"},
                },
            )
        ],
    )
    def post(self, request: Request) -> Response:
        outcome = metering.ingest_body(
            actor=self.actor,
            # As it was sent: parsing it here as JSON would let one bad event refuse the batch.
            body=request._request.body,
            content_type=request.content_type,
            now=timezone.now(),
        )
        return Response(OutcomeOutput(outcome).data)
