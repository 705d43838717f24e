"""The outbox: events written in the transaction of the change they report."""

from __future__ import annotations

from django.core.serializers.json import DjangoJSONEncoder
from django.db import models
from django.utils.translation import gettext_lazy as _

from apps.core.ids import uuid7


class OutboxEvent(models.Model):
    """One thing that happened, waiting to be told; it exists exactly if the change was committed."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    organization_id = models.UUIDField(_("organization"), null=True, blank=True)
    event_type = models.CharField(_("type"), max_length=64)
    payload = models.JSONField(_("payload"), encoder=DjangoJSONEncoder)
    correlation_id = models.CharField(_("correlation id"), max_length=128)
    created_at = models.DateTimeField(_("created"))

    class Meta:
        verbose_name = _("outbox event")
        verbose_name_plural = _("outbox events")
        indexes = [
            models.Index(fields=["organization_id", "-created_at", "-id"], name="outbox_outboxevent_org"),
            models.Index(fields=["-created_at", "-id"], name="outbox_outboxevent_time"),
        ]

    def __str__(self) -> str:
        return self.event_type
