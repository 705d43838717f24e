"""Campaigns that give credit away, their codes, and who redeemed one."""

from __future__ import annotations

from datetime import datetime
from typing import Self

from django.conf import settings
from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import F, Q
from django.utils.translation import gettext_lazy as _

from apps.core.actor import Actor
from apps.core.ids import uuid7


class CampaignKind(models.TextChoices):
    """One code that many redeem, or many codes that work once each."""

    SHARED = "shared", _("One code for all")
    UNIQUE = "unique", _("A code for each")


class Campaign(models.Model):
    """Credit that is given away by codes; its terms never change, it can only end early.

    starts_at, ends_at: when its codes can be redeemed, half-open; None is for ever.
    credit_days: how long the credit lasts from its redemption; None is for ever.
    new_within_days: only for organizations made at most so many days before; None is for all.
    allowed_domains: of verified addresses, in lower case; empty is every one.
    redemptions_max: of all organizations together. organization_max: of one.
    """

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    name = models.CharField(
        _("name"), max_length=150, unique=True, help_text=_("Customers read it on their statement.")
    )
    kind = models.CharField(_("codes"), max_length=8, choices=CampaignKind)
    amount_micros = models.BigIntegerField(_("amount"))
    currency = models.CharField(_("currency"), max_length=3)
    redemptions_max = models.PositiveIntegerField(_("redemptions in all"))
    organization_max = models.PositiveSmallIntegerField(_("redemptions per organization"), default=1)
    starts_at = models.DateTimeField(_("from"))
    ends_at = models.DateTimeField(_("until"), null=True, blank=True)
    credit_days = models.PositiveSmallIntegerField(_("days the credit lasts"), null=True, blank=True)
    new_within_days = models.PositiveSmallIntegerField(
        _("only organizations made within days"), null=True, blank=True
    )
    allowed_domains = ArrayField(
        models.CharField(max_length=253), verbose_name=_("only mail domains"), default=list, blank=True
    )
    redeemed_count = models.PositiveIntegerField(_("redeemed"), default=0, editable=False)
    ended_at = models.DateTimeField(_("ended early"), null=True, blank=True)
    created_by_label = models.CharField(_("by"), max_length=254)
    created_at = models.DateTimeField(_("created"))

    class Meta:
        verbose_name = _("voucher campaign")
        verbose_name_plural = _("voucher campaigns")
        constraints = [
            models.CheckConstraint(
                name="vouchers_campaign_kind_known", condition=Q(kind__in=CampaignKind.values)
            ),
            models.CheckConstraint(
                name="vouchers_campaign_amount_positive", condition=Q(amount_micros__gt=0)
            ),
            models.CheckConstraint(
                name="vouchers_campaign_currency_code", condition=Q(currency__regex=r"^[A-Z]{3}$")
            ),
            models.CheckConstraint(
                name="vouchers_campaign_within_limit",
                condition=Q(redeemed_count__lte=F("redemptions_max"), redemptions_max__gte=1),
            ),
            models.CheckConstraint(
                name="vouchers_campaign_organization_max", condition=Q(organization_max__gte=1)
            ),
            models.CheckConstraint(
                name="vouchers_campaign_forward", condition=Q(ends_at=None) | Q(ends_at__gt=F("starts_at"))
            ),
            models.CheckConstraint(
                name="vouchers_campaign_lasts", condition=Q(credit_days=None) | Q(credit_days__gte=1)
            ),
        ]

    def __str__(self) -> str:
        return self.name

    def has_ended(self, now: datetime) -> bool:
        """Return whether it was ended early, or its time is over."""
        return self.ended_at is not None or (self.ends_at is not None and self.ends_at <= now)

    def is_open(self, now: datetime) -> bool:
        """Return whether the time is right; there may be nothing left."""
        return self.starts_at <= now and not self.has_ended(now)


class VoucherCodeQuerySet(models.QuerySet["VoucherCode"]):
    """Reads of codes."""

    def usable(self) -> Self:
        """Return the codes that are not void and have redemptions left."""
        return self.filter(voided_at=None, redeemed_count__lt=F("redemptions_max"))


class VoucherCode(models.Model):
    """A code, of which only a hash is kept; `hint` is its last four characters, to tell codes apart."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    campaign = models.ForeignKey(Campaign, models.PROTECT, related_name="codes", verbose_name=_("campaign"))
    digest = models.BinaryField(_("hash"), max_length=32, unique=True, editable=False)
    hint = models.CharField(_("ends with"), max_length=4)
    redemptions_max = models.PositiveIntegerField(_("redemptions in all"))
    redeemed_count = models.PositiveIntegerField(_("redeemed"), default=0)
    voided_at = models.DateTimeField(_("void since"), null=True, blank=True)
    created_at = models.DateTimeField(_("created"))

    objects = VoucherCodeQuerySet.as_manager()

    class Meta:
        verbose_name = _("voucher code")
        verbose_name_plural = _("voucher codes")
        constraints = [
            models.UniqueConstraint(fields=["campaign", "id"], name="vouchers_vouchercode_of_campaign"),
            models.CheckConstraint(
                name="vouchers_vouchercode_within_limit",
                condition=Q(redeemed_count__lte=F("redemptions_max"), redemptions_max__gte=1),
            ),
        ]

    def __str__(self) -> str:
        return f"…{self.hint}"


class RedemptionQuerySet(models.QuerySet["Redemption"]):
    """Reads of redemptions."""

    def visible_to(self, actor: Actor) -> Self:
        """Return the redemptions of the actor's organization."""
        return self.filter(organization_id=actor.organization_id)


class Redemption(models.Model):
    """A code redeemed by an organization, and the lot of credit that it became; never changed.

    ordinal: counts the organization's redemptions of the campaign from 1.
    """

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    organization = models.ForeignKey(
        "organizations.Organization", models.PROTECT, related_name="+", verbose_name=_("organization")
    )
    campaign = models.ForeignKey(
        Campaign, models.PROTECT, related_name="redemptions", verbose_name=_("campaign")
    )
    code = models.ForeignKey(
        VoucherCode, models.PROTECT, related_name="redemptions", verbose_name=_("code"), db_constraint=False
    )
    lot = models.OneToOneField(
        "billing.CreditLot",
        models.PROTECT,
        related_name="+",
        verbose_name=_("credit lot"),
        db_constraint=False,
    )
    ordinal = models.PositiveSmallIntegerField(_("number"))
    redeemed_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.PROTECT, related_name="+", null=True, blank=True
    )
    redeemed_by_label = models.CharField(_("by"), max_length=254)
    created_at = models.DateTimeField(_("redeemed"))

    objects = RedemptionQuerySet.as_manager()

    class Meta:
        verbose_name = _("redemption")
        verbose_name_plural = _("redemptions")
        constraints = [
            models.UniqueConstraint(fields=["organization", "id"], name="vouchers_redemption_tenant"),
            models.UniqueConstraint(
                fields=["campaign", "organization", "ordinal"], name="vouchers_redemption_ordinal"
            ),
            # Whatever the limits say, nobody gets the same code twice.
            models.UniqueConstraint(fields=["code", "organization"], name="vouchers_redemption_code_once"),
        ]
        indexes = [models.Index(fields=["-created_at", "-id"], name="vouchers_redemption_created")]

    def __str__(self) -> str:
        return f"{self.campaign}, {self.organization}"
