"""Mails as rows: what to say to whom and why; the text is rendered anew at each attempt and never stored."""

from __future__ import annotations

from datetime import datetime
from typing import Self

from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from apps.core.ids import uuid7


class MailState(models.TextChoices):
    """How far a mail got."""

    QUEUED = "queued", _("Waiting")
    SENT = "sent", _("Sent")
    FAILED = "failed", _("Given up")


class MailQuerySet(models.QuerySet["Mail"]):
    """Reads of mails."""

    def due(self, now: datetime) -> Self:
        """Return those to be tried by now, the longest waiting first."""
        waiting = self.filter(state=MailState.QUEUED, next_attempt_at__lte=now)
        return waiting.order_by("next_attempt_at", "pk")


class Mail(models.Model):
    """One mail to one recipient. A cause mails nobody twice.

    Organizations and users are plain ids here: who is told need not exist any more.
    erased_once_over: whether recipient and facts go as soon as it is sent or given up, since the person is gone.
    """

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    organization_id = models.UUIDField(_("organization"), null=True, blank=True)
    user_id = models.UUIDField(_("user"), null=True, blank=True)
    template = models.CharField(_("template"), max_length=100)
    recipient = models.EmailField(_("recipient"))
    context = models.JSONField(_("facts"), default=dict)
    cause = models.CharField(_("cause"), max_length=160)
    state = models.CharField(_("state"), max_length=8, choices=MailState, default=MailState.QUEUED)
    attempts = models.PositiveSmallIntegerField(_("attempts"), default=0)
    next_attempt_at = models.DateTimeField(_("next attempt"))
    sent_at = models.DateTimeField(_("sent"), null=True, blank=True)
    erased_once_over = models.BooleanField(_("erased once over"), default=False, db_default=False)
    error = models.CharField(_("last error"), max_length=500, blank=True)
    correlation_id = models.CharField(_("correlation id"), max_length=128)
    created_at = models.DateTimeField(_("created"))

    objects = MailQuerySet.as_manager()

    class Meta:
        verbose_name = _("mail")
        verbose_name_plural = _("mails")
        constraints = [
            models.UniqueConstraint(name="notifications_mail_once", fields=["cause", "recipient"]),
            models.CheckConstraint(
                name="notifications_mail_state_known", condition=Q(state__in=MailState.values)
            ),
            models.CheckConstraint(
                name="notifications_mail_sent_at_once_sent",
                condition=Q(state=MailState.SENT, sent_at__isnull=False)
                | (~Q(state=MailState.SENT) & Q(sent_at__isnull=True)),
            ),
        ]
        indexes = [
            models.Index(
                fields=["next_attempt_at", "id"],
                name="notifications_mail_due",
                condition=Q(state=MailState.QUEUED),
            ),
            models.Index(fields=["organization_id", "-created_at", "-id"], name="notifications_mail_org"),
            models.Index(fields=["-created_at", "-id"], name="notifications_mail_time"),
            models.Index(fields=["recipient"], name="notifications_mail_recipient"),
        ]

    def __str__(self) -> str:
        return f"{self.template} → {self.recipient}"
