"""What was given to bookkeeping: months that are locked, and the entries in each."""

from __future__ import annotations

from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from apps.core.ids import uuid7


class JournalMonth(models.Model):
    """A month of the journal that was locked; what its export says stays until it is unlocked, with a reason."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    label = models.CharField(_("month"), max_length=7)
    locked_at = models.DateTimeField(_("locked"))
    locked_by = models.CharField(_("locked by"), max_length=150)
    unlocked_at = models.DateTimeField(_("unlocked"), null=True, blank=True)
    unlocked_by = models.CharField(_("unlocked by"), max_length=150, blank=True)
    reason = models.CharField(_("reason"), max_length=500, blank=True)

    class Meta:
        verbose_name = _("locked month")
        verbose_name_plural = _("locked months")
        constraints = [
            models.UniqueConstraint(
                name="invoices_journalmonth_locked_once",
                fields=["label"],
                condition=Q(unlocked_at=None),
            ),
            models.CheckConstraint(
                name="invoices_journalmonth_label_form", condition=Q(label__regex=r"^\d{4}-(0[1-9]|1[0-2])$")
            ),
            models.CheckConstraint(
                name="invoices_journalmonth_unlock_complete",
                condition=Q(unlocked_at=None, reason="") | Q(unlocked_at__isnull=False) & ~Q(reason=""),
            ),
        ]

    def __str__(self) -> str:
        return self.label


class JournalEntry(models.Model):
    """One balanced entry of a locked month, as it was exported.

    source: what is behind it, `document:<id>` or `voucher:<id>` of a batch of transfers, in one locked month only.
    number: consecutive within month and selling entity. lines: as `journal.Line`, amounts in minor units.
    organization_slug, and the codes of the lines' accounts: as exported, whatever they are called later.
    """

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    organization = models.ForeignKey("organizations.Organization", models.PROTECT, related_name="+")
    organization_slug = models.CharField(max_length=63, db_default="")
    month = models.ForeignKey(JournalMonth, models.PROTECT, related_name="entries")
    entity = models.CharField(max_length=32)
    number = models.PositiveIntegerField()
    source = models.CharField(max_length=48)
    date = models.DateField()
    document = models.CharField(max_length=160)
    currency = models.CharField(max_length=3)
    text = models.CharField(max_length=300)
    lines = models.JSONField()
    is_released = models.BooleanField(default=False)

    class Meta:
        verbose_name = _("journal entry")
        verbose_name_plural = _("journal entries")
        constraints = [
            models.UniqueConstraint(
                name="invoices_journalentry_source", fields=["source"], condition=Q(is_released=False)
            ),
            models.UniqueConstraint(
                name="invoices_journalentry_number", fields=["month", "entity", "number"]
            ),
        ]

    def __str__(self) -> str:
        return f"{self.entity} {self.number}"
