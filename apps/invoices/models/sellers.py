"""Who sells: the legal entities that issue invoices, and which organization buys from which."""

from __future__ import annotations

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import F, Q
from django.utils.translation import gettext_lazy as _

DEFAULT_ENTITY = "default"


class SellerEntity(models.Model):
    """A legal entity that issues invoices, with what must stand on them and its own series of numbers.

    tax_registrations: countries besides its own in which it charges tax, by ISO code; EU for the One-Stop Shop.
    payment_days: days from the invoice to its due date. logo: an SVG image.
    """

    code = models.SlugField(_("code"), max_length=32, primary_key=True)
    legal_name = models.CharField(_("legal name"), max_length=200)
    line1 = models.CharField(_("street and number"), max_length=200, blank=True)
    line2 = models.CharField(_("address, second line"), max_length=200, blank=True)
    postal_code = models.CharField(_("postal code"), max_length=20, blank=True)
    city = models.CharField(_("city"), max_length=100, blank=True)
    region = models.CharField(_("state or region"), max_length=100, blank=True)
    country = models.CharField(_("country"), max_length=2)
    vat_id = models.CharField(_("VAT id"), max_length=32, blank=True)
    tax_number = models.CharField(_("tax number"), max_length=40, blank=True)
    registration_number = models.CharField(_("company registration"), max_length=100, blank=True)
    email = models.EmailField(_("e-mail"), blank=True)
    website = models.CharField(_("website"), max_length=200, blank=True)
    bank_name = models.CharField(_("bank"), max_length=100, blank=True)
    account_holder = models.CharField(_("account holder"), max_length=100, blank=True)
    iban = models.CharField(_("IBAN"), max_length=40, blank=True)
    bic = models.CharField(_("BIC"), max_length=11, blank=True)
    logo = models.TextField(_("logo"), blank=True)
    payment_days = models.PositiveSmallIntegerField(_("days to pay"), default=14)
    terms = models.CharField(_("terms of payment"), max_length=500, blank=True)
    timezone = models.CharField(_("time zone"), max_length=64, default="UTC")
    invoice_series = models.CharField(_("series of invoices"), max_length=8, default="INV")
    credit_note_series = models.CharField(_("series of credit notes"), max_length=8, default="CN")
    tax_registrations = ArrayField(
        models.CharField(max_length=2), verbose_name=_("registered for tax in"), default=list, blank=True
    )
    updated_at = models.DateTimeField(_("changed"))

    class Meta:
        verbose_name = _("seller")
        verbose_name_plural = _("sellers")
        constraints = [
            models.CheckConstraint(
                name="invoices_sellerentity_country_form", condition=Q(country__regex=r"^[A-Z]{2}$")
            ),
            models.CheckConstraint(
                name="invoices_sellerentity_two_series",
                condition=Q(invoice_series__regex=r"^[A-Z]{1,8}$", credit_note_series__regex=r"^[A-Z]{1,8}$")
                & ~Q(invoice_series=F("credit_note_series")),
            ),
        ]

    def __str__(self) -> str:
        return self.legal_name


class SellerAssignment(models.Model):
    """The entity that an organization buys from, where that is not the default one."""

    organization = models.OneToOneField(
        "organizations.Organization", models.PROTECT, primary_key=True, related_name="+"
    )
    seller = models.ForeignKey(SellerEntity, models.PROTECT, related_name="assignments")

    class Meta:
        verbose_name = _("seller of an organization")
        verbose_name_plural = _("sellers of organizations")

    def __str__(self) -> str:
        return f"{self.organization_id}: {self.seller_id}"
