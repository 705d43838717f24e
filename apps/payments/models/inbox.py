"""The inbox of Stripe's webhooks."""

from __future__ import annotations

from datetime import datetime
from typing import Self

from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _


class EventState(models.TextChoices):
    """What became of a webhook: received is one fact, processed another."""

    RECEIVED = "received", _("Waiting")
    PROCESSED = "processed", _("Processed")
    IGNORED = "ignored", _("Not ours to act on")
    DEAD = "dead", _("Given up")


class StripeEventQuerySet(models.QuerySet["StripeEvent"]):
    def due(self, now: datetime) -> Self:
        return self.filter(state=EventState.RECEIVED, next_attempt_at__lte=now)


class StripeEvent(models.Model):
    """One event of Stripe's as it came, byte for byte, and what was done about it."""

    id = models.CharField(max_length=128, primary_key=True)
    event_type = models.CharField(max_length=96)
    object_id = models.CharField(max_length=128)
    account = models.CharField(max_length=64, blank=True)
    is_live = models.BooleanField()
    body = models.BinaryField()
    source = models.CharField(max_length=16, default="webhook")
    state = models.CharField(max_length=12, choices=EventState.choices, default=EventState.RECEIVED)
    attempts = models.PositiveSmallIntegerField(default=0)
    next_attempt_at = models.DateTimeField()
    last_error = models.TextField(blank=True)
    happened_at = models.DateTimeField()
    received_at = models.DateTimeField()
    processed_at = models.DateTimeField(null=True, blank=True)

    objects = StripeEventQuerySet.as_manager()

    class Meta:
        verbose_name = _("Stripe event")
        verbose_name_plural = _("Stripe events")
        permissions = [("replay_stripeevent", _("Can process Stripe events again"))]
        constraints = [
            models.CheckConstraint(
                name="payments_stripeevent_state_known", condition=Q(state__in=EventState.values)
            ),
        ]
        indexes = [
            models.Index(
                name="payments_stripeevent_due",
                fields=["next_attempt_at", "id"],
                condition=Q(state=EventState.RECEIVED),
            ),
            models.Index(name="payments_stripeevent_object", fields=["object_id"]),
            models.Index(name="payments_stripeevent_time", fields=["-received_at", "-id"]),
        ]

    def __str__(self) -> str:
        return f"{self.event_type} {self.id}"
