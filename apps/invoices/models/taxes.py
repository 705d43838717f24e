"""How sales are taxed: rates with their dates, exemptions, and what the registry said of VAT ids."""

from __future__ import annotations

from datetime import date
from typing import Self
from uuid import UUID

from django.db import models
from django.db.models import F, Q
from django.utils.translation import gettext_lazy as _

from apps.core.ids import uuid7


class TaxCategory(models.TextChoices):
    """Why a rate is what it is, in the codes of EN 16931 (UNCL 5305)."""

    STANDARD = "S", _("Standard rate")
    ZERO = "Z", _("Zero rate")
    EXEMPT = "E", _("Exempt")
    REVERSE_CHARGE = "AE", _("Reverse charge")
    OUTSIDE = "O", _("Outside the scope of tax")


class TaxRateQuerySet(models.QuerySet["TaxRate"]):
    def in_force(self, on: date) -> Self:
        """Return the rates that a day may take, the one that counts first for each country and region."""
        return self.filter(effective_from__lte=on).order_by(
            "country", "region", "-effective_from", "-created_at", "-id"
        )


class TaxRate(models.Model):
    """The standard rate of a country, or of a region of it, from a day on; the newest row that has begun counts."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    country = models.CharField(_("country"), max_length=2)
    region = models.CharField(_("state or region"), max_length=100, blank=True)
    percent = models.DecimalField(_("percent"), max_digits=7, decimal_places=4)
    effective_from = models.DateField(_("from"))
    source = models.CharField(_("source"), max_length=100)
    created_at = models.DateTimeField()

    objects = TaxRateQuerySet.as_manager()

    class Meta:
        verbose_name = _("tax rate")
        verbose_name_plural = _("tax rates")
        constraints = [
            models.CheckConstraint(
                name="invoices_taxrate_percent", condition=Q(percent__gte=0, percent__lte=100)
            ),
            models.CheckConstraint(
                name="invoices_taxrate_country_form", condition=Q(country__regex=r"^[A-Z]{2}$")
            ),
        ]
        indexes = [
            models.Index(name="invoices_taxrate_place", fields=["country", "region", "-effective_from"])
        ]

    def __str__(self) -> str:
        return f"{self.country} {self.region} {self.percent.normalize():f} %"


class TaxExemptionQuerySet(models.QuerySet["TaxExemption"]):
    def in_force(self, organization_id: UUID, on: date) -> Self:
        return self.filter(
            Q(valid_until=None) | Q(valid_until__gt=on),
            organization_id=organization_id,
            valid_from__lte=on,
            revoked_at=None,
        ).order_by("-valid_from", "-id")


class TaxExemption(models.Model):
    """The certificate that frees an organization from one country's tax; `valid_until` is the first day without."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    organization = models.ForeignKey("organizations.Organization", models.PROTECT, related_name="+")
    country = models.CharField(_("country"), max_length=2)
    certificate = models.CharField(_("certificate"), max_length=60)
    reason = models.CharField(_("reason, as on the invoice"), max_length=200)
    valid_from = models.DateField(_("valid from"))
    valid_until = models.DateField(_("valid until"), null=True, blank=True)
    revoked_at = models.DateTimeField(_("revoked"), null=True, blank=True)
    created_at = models.DateTimeField()

    objects = TaxExemptionQuerySet.as_manager()

    class Meta:
        verbose_name = _("tax exemption")
        verbose_name_plural = _("tax exemptions")
        constraints = [
            models.CheckConstraint(
                name="invoices_taxexemption_forward",
                condition=Q(valid_until=None) | Q(valid_until__gt=F("valid_from")),
            ),
        ]
        indexes = [
            models.Index(name="invoices_taxexemption_place", fields=["organization", "country"]),
        ]

    def __str__(self) -> str:
        return f"{self.country} {self.certificate}"


class VatAnswer(models.TextChoices):
    """What the registry answered about a VAT id."""

    VALID = "valid", _("Valid")
    INVALID = "invalid", _("Invalid")
    UNAVAILABLE = "unavailable", _("Did not answer")


class VatCheck(models.Model):
    """One question to the registry about a VAT id, kept with its answer as the proof of having asked."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    organization = models.ForeignKey("organizations.Organization", models.PROTECT, related_name="+")
    vat_id = models.CharField(_("VAT id"), max_length=32)
    requester = models.CharField(_("asked by"), max_length=32, blank=True)
    answer = models.CharField(_("answer"), max_length=12, choices=VatAnswer)
    consultation = models.CharField(_("consultation number"), max_length=64, blank=True)
    details = models.JSONField(_("as answered"), default=dict)
    checked_at = models.DateTimeField(_("asked"))

    class Meta:
        verbose_name = _("VAT check")
        verbose_name_plural = _("VAT checks")
        constraints = [
            models.CheckConstraint(
                name="invoices_vatcheck_answer_known", condition=Q(answer__in=VatAnswer.values)
            ),
        ]
        indexes = [models.Index(name="invoices_vatcheck_newest", fields=["organization", "-checked_at"])]

    def __str__(self) -> str:
        return f"{self.vat_id}: {self.answer}"
