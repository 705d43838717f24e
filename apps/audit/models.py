"""The audit log: one append-only row for each change."""

from __future__ import annotations

from typing import Self

from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from apps.core.actor import Actor, ActorKind
from apps.core.ids import uuid7

ACTOR_KINDS = {
    ActorKind.USER: _("User"),
    ActorKind.API_KEY: _("API key"),
    ActorKind.INTEGRATION: _("Integration"),
    ActorKind.STAFF: _("Staff"),
    ActorKind.SYSTEM: _("System"),
}


class AuditEventQuerySet(models.QuerySet["AuditEvent"]):
    """Reads of the audit log."""

    def visible_to(self, actor: Actor) -> Self:
        """Return what happened in the actor's organization."""
        return self.filter(organization_id=actor.organization_id)

    def newest_first(self) -> Self:
        """Return the latest events first."""
        return self.order_by("-occurred_at", "-pk")


class AuditEvent(models.Model):
    """One thing that one actor did. PostgreSQL refuses to change, delete or truncate it.

    Organizations, users and targets are plain ids here: the log knows no other app and outlives every row.
    """

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    organization_id = models.UUIDField(_("organization"), null=True, blank=True)
    actor_kind = models.CharField(_("kind of actor"), max_length=16, choices=list(ACTOR_KINDS.items()))
    actor_id = models.UUIDField(_("actor id"), null=True, blank=True)
    actor_label = models.CharField(_("actor"), max_length=254)
    on_behalf_of = models.CharField(_("on behalf of"), max_length=254, blank=True)
    credential_id = models.UUIDField(_("credential"), null=True, blank=True)
    address = models.CharField(_("address"), max_length=45, blank=True)
    action = models.CharField(_("action"), max_length=64)
    target_type = models.CharField(_("target type"), max_length=64, blank=True)
    target_id = models.CharField(_("target id"), max_length=64, blank=True)
    target_label = models.CharField(_("target"), max_length=254, blank=True)
    diff = models.JSONField(_("changes"), default=dict, blank=True)
    reason = models.TextField(_("reason"), blank=True)
    correlation_id = models.CharField(_("correlation id"), max_length=128)
    occurred_at = models.DateTimeField(_("occurred"))

    objects = AuditEventQuerySet.as_manager()

    class Meta:
        verbose_name = _("audit event")
        verbose_name_plural = _("audit events")
        constraints = [
            models.CheckConstraint(
                name="audit_auditevent_actor_kind_known",
                condition=Q(actor_kind__in=[kind.value for kind in ActorKind]),
            )
        ]
        indexes = [
            models.Index(
                fields=["organization_id", "-occurred_at", "-id"], name="audit_auditevent_organization"
            ),
            models.Index(fields=["-occurred_at", "-id"], name="audit_auditevent_time"),
            models.Index(fields=["target_type", "target_id"], name="audit_auditevent_target"),
            models.Index(fields=["correlation_id"], name="audit_auditevent_correlation"),
        ]

    def __str__(self) -> str:
        return self.action


class Chain(models.Model):
    """Where the chain of an organization, or of users and staff, ends; whoever seals locks this row."""

    id = models.UUIDField(primary_key=True, editable=False)
    position = models.BigIntegerField(_("length"), default=0)
    digest = models.BinaryField(_("last digest"), max_length=32)

    class Meta:
        verbose_name = _("chain")
        verbose_name_plural = _("chains")

    def __str__(self) -> str:
        return str(self.id)


class Seal(models.Model):
    """The place of one event in its chain, with the digest of it and of all before it. PostgreSQL keeps it as it is."""

    event = models.OneToOneField(AuditEvent, models.PROTECT, primary_key=True, related_name="seal")
    chain_id = models.UUIDField(_("chain"))
    position = models.BigIntegerField(_("position"))
    digest = models.BinaryField(_("digest"), max_length=32)
    sealed_at = models.DateTimeField(_("sealed"))

    class Meta:
        verbose_name = _("seal")
        verbose_name_plural = _("seals")
        constraints = [
            models.UniqueConstraint(name="audit_seal_place", fields=["chain_id", "position"]),
            models.CheckConstraint(name="audit_seal_position_counts_from_one", condition=Q(position__gte=1)),
        ]

    def __str__(self) -> str:
        return f"{self.chain_id} {self.position}"


class WaitingEvent(models.Model):
    """An event that no chain holds yet; a trigger writes it with the event, whoever writes that."""

    event = models.OneToOneField(AuditEvent, models.PROTECT, primary_key=True, related_name="waiting")
    chain_id = models.UUIDField(_("chain"))

    class Meta:
        verbose_name = _("waiting event")
        verbose_name_plural = _("waiting events")
        indexes = [models.Index(fields=["chain_id"], name="audit_waitingevent_chain")]

    def __str__(self) -> str:
        return str(self.event_id)
