"""What is measured and sold, and for how much: price books in versions that never change once published."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any, Self

from django.contrib.postgres.constraints import ExclusionConstraint
from django.contrib.postgres.fields import DateTimeRangeField, RangeBoundary, RangeOperators
from django.db import models
from django.db.models import F, Func, Min, OuterRef, Q, Subquery, Value
from django.db.models.functions import Coalesce
from django.utils.translation import gettext_lazy as _

from apps.core.actor import Actor
from apps.core.ids import uuid7

ANY = "*"
# Catalogs of other clouds have region names such as "Alabama, US"; a slash would not survive in a path.
CODE_PATTERN = r"^[A-Za-z0-9]([A-Za-z0-9 ._:,+()-]*[A-Za-z0-9)+])?$"
CODE_LENGTH_MAX = 100
SHORT_CODE_LENGTH_MAX = 64  # Of meters and regions.
PRICE_DIGITS_MAX = 20
PRICE_DECIMALS_MAX = 10
QUANTITY_DIGITS_MAX = 38
QUANTITY_DECIMALS_MAX = 6
# The first values that the columns cannot hold. PostgreSQL sorts NaN above every number: a limit refuses it.
PRICE_LIMIT = 10**10
QUANTITY_LIMIT = 10**32
PERCENT_MAX = 100


class VersionState(models.TextChoices):
    """The life of a price book's version. A retired one still prices the usage of its time."""

    DRAFT = "draft", _("Draft")
    PUBLISHED = "published", _("Published")
    RETIRED = "retired", _("Retired")


class PriceModel(models.TextChoices):
    """How a quantity becomes an amount; `apps.pricing.rating` does it."""

    PER_UNIT = "per_unit", _("Per unit")
    GRADUATED = "graduated", _("Graduated tiers")
    VOLUME = "volume", _("Volume tiers")
    PACKAGE = "package", _("Packages")


def in_force_range() -> Func:
    """Return a row's half-open time in force as a range; one without an end has no upper bound."""
    return Func(
        F("effective_from"),
        F("effective_to"),
        RangeBoundary(),
        function="TSTZRANGE",
        output_field=DateTimeRangeField(),
    )


def _code_form(name: str) -> models.CheckConstraint:
    return models.CheckConstraint(name=name, condition=Q(code__regex=CODE_PATTERN))


class Meter(models.Model):
    """Something counted: its quantities of one period add up.

    unit_seconds: 3600 where quantities are seconds and prices per hour, else 1.
    """

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    code = models.CharField(_("code"), max_length=SHORT_CODE_LENGTH_MAX, unique=True)
    name = models.CharField(_("name"), max_length=150)
    unit_label = models.CharField(
        _("unit"), max_length=32, help_text=_("What one unit is called, such as GB.")
    )
    unit_seconds = models.PositiveIntegerField(_("seconds per unit"), default=1, editable=False)

    class Meta:
        verbose_name = _("meter")
        verbose_name_plural = _("meters")
        constraints = [
            models.CheckConstraint(
                name="pricing_meter_code_form", condition=Q(code__regex=r"^[a-z][a-z0-9_]*$")
            ),
            models.CheckConstraint(
                name="pricing_meter_unit_seconds_known", condition=Q(unit_seconds__in=[1, 3600])
            ),
        ]

    def __str__(self) -> str:
        return self.code


class Sku(models.Model):
    """Something sold, such as one type of machine.

    attributes: accelerator, gpus, vcpus and memory_gib where known; numbers as strings.
    """

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    code = models.CharField(_("code"), max_length=CODE_LENGTH_MAX, unique=True)
    name = models.CharField(_("name"), max_length=150, blank=True)
    family = models.CharField(_("family"), max_length=64, blank=True)
    attributes = models.JSONField(_("attributes"), default=dict, blank=True)

    class Meta:
        verbose_name = _("SKU")
        verbose_name_plural = _("SKUs")
        constraints = [_code_form("pricing_sku_code_form")]

    def __str__(self) -> str:
        return self.code


class Region(models.Model):
    """A place where things are sold."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    code = models.CharField(_("code"), max_length=SHORT_CODE_LENGTH_MAX, unique=True)
    name = models.CharField(_("name"), max_length=150, blank=True)

    class Meta:
        verbose_name = _("region")
        verbose_name_plural = _("regions")
        constraints = [_code_form("pricing_region_code_form")]

    def __str__(self) -> str:
        return self.code


class PriceBookQuerySet(models.QuerySet["PriceBook"]):
    """Reads of price books."""

    def with_version_in_force(self, moment: datetime) -> Self:
        """Add the number of the version that prices a moment, as `version_in_force`; None without one."""
        in_force = PriceBookVersion.objects.in_force_at(moment).filter(book=OuterRef("pk"))
        return self.annotate(version_in_force=Subquery(in_force.values("number")[:1]))

    def default_for(self, currency: str) -> Self:
        """Return the operator's default book in a currency, as at most one row.

        It is the book published first that is not the demonstration's, which is only ever assigned.
        """
        return (
            self.filter(currency=currency, is_demonstration=False)
            .annotate(first_published_at=Min("versions__published_at"))
            .filter(first_published_at__isnull=False)
            .order_by("first_published_at", "pk")[:1]
        )


class PriceBook(models.Model):
    """A named list of prices in one currency, as a sequence of versions."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    name = models.CharField(_("name"), max_length=150, unique=True)
    currency = models.CharField(_("currency"), max_length=3)
    is_demonstration = models.BooleanField(
        _("demonstration"), default=False, help_text=_("Never anybody's default; it must be assigned.")
    )
    created_at = models.DateTimeField(_("created"))

    objects = PriceBookQuerySet.as_manager()

    class Meta:
        verbose_name = _("price book")
        verbose_name_plural = _("price books")
        constraints = [
            models.CheckConstraint(
                name="pricing_pricebook_currency_form", condition=Q(currency__regex=r"^[A-Z]{3}$")
            ),
            models.CheckConstraint(name="pricing_pricebook_name_given", condition=~Q(name="")),
        ]

    def __str__(self) -> str:
        return self.name


class PriceBookVersionQuerySet(models.QuerySet["PriceBookVersion"]):
    """Reads of versions."""

    def ever_published(self) -> Self:
        """Return the versions that priced, price or will price usage; retired ones included."""
        return self.exclude(state=VersionState.DRAFT)

    def in_force_at(self, moment: datetime) -> Self:
        """Return the versions that price a moment, at most one of each book."""
        return self.ever_published().filter(
            Q(effective_to__isnull=True) | Q(effective_to__gt=moment), effective_from__lte=moment
        )

    def in_force_during(self, start: datetime, end: datetime) -> Self:
        """Return the versions that price some moment of a half-open range."""
        return self.ever_published().filter(
            Q(effective_to__isnull=True) | Q(effective_to__gt=start), effective_from__lt=end
        )


class PriceBookVersion(models.Model):
    """One edition of a book. Once published only `effective_to` is set, once, and the state becomes retired.

    effective_from, effective_to: whole UTC hours, half-open; versions of one book never overlap.
    checksum: SHA-256 of the imported prices, so that a repeated import is noticed; empty when made by hand.
    """

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    book = models.ForeignKey(PriceBook, models.PROTECT, related_name="versions", verbose_name=_("price book"))
    number = models.PositiveIntegerField(_("number"))
    state = models.CharField(_("state"), max_length=16, choices=VersionState, default=VersionState.DRAFT)
    effective_from = models.DateTimeField(_("effective from"), null=True, blank=True)
    effective_to = models.DateTimeField(_("effective to"), null=True, blank=True)
    created_at = models.DateTimeField(_("created"))
    published_at = models.DateTimeField(_("published"), null=True, blank=True)
    checksum = models.CharField(_("checksum"), max_length=64, blank=True)

    objects = PriceBookVersionQuerySet.as_manager()

    class Meta:
        verbose_name = _("version")
        verbose_name_plural = _("versions")
        permissions = [("publish_pricebookversion", _("Can publish, retire and add to versions"))]
        constraints = [
            models.UniqueConstraint(fields=["book", "number"], name="pricing_pricebookversion_number"),
            models.CheckConstraint(
                name="pricing_pricebookversion_state_known", condition=Q(state__in=VersionState.values)
            ),
            models.CheckConstraint(
                name="pricing_pricebookversion_published_has_dates",
                condition=Q(state=VersionState.DRAFT, published_at=None, effective_to=None)
                | Q(
                    state__in=[VersionState.PUBLISHED, VersionState.RETIRED],
                    effective_from__isnull=False,
                    published_at__isnull=False,
                ),
            ),
            models.CheckConstraint(
                name="pricing_pricebookversion_retired_has_end",
                condition=~Q(state=VersionState.RETIRED) | Q(effective_to__isnull=False),
            ),
            models.CheckConstraint(
                name="pricing_pricebookversion_ends_after_start",
                condition=Q(effective_to=None) | Q(effective_to__gt=F("effective_from")),
            ),
            ExclusionConstraint(
                name="pricing_pricebookversion_no_overlap",
                expressions=[("book", RangeOperators.EQUAL), (in_force_range(), RangeOperators.OVERLAPS)],
                condition=~Q(state=VersionState.DRAFT),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.book} v{self.number}"


def _model_columns(model: str, *columns: str) -> Q:
    every = ("unit_price", "tiers", "package_size", "package_price", "free_units")
    return Q(model=model, **{f"{column}__isnull": column not in columns for column in every})


def _price_range(column: str) -> Q:
    return Q(**{f"{column}__isnull": True}) | Q(**{f"{column}__gte": 0, f"{column}__lt": PRICE_LIMIT})


def _decimal(label: Any, digits: int, decimals: int) -> models.DecimalField[Decimal | None, Decimal | None]:
    return models.DecimalField(label, max_digits=digits, decimal_places=decimals, null=True, blank=True)


class Terms(models.Model):
    """What something costs, in the columns of its model; those of the other models are empty.

    tiers: a list of {up_to, unit_price, flat_fee}, decimals as strings, up_to null in the last.
    """

    unit_price = _decimal(_("unit price"), PRICE_DIGITS_MAX, PRICE_DECIMALS_MAX)
    tiers = models.JSONField(_("tiers"), null=True, blank=True)
    package_size = _decimal(_("package size"), QUANTITY_DIGITS_MAX, QUANTITY_DECIMALS_MAX)
    package_price = _decimal(_("package price"), PRICE_DIGITS_MAX, PRICE_DECIMALS_MAX)
    free_units = _decimal(_("free units"), QUANTITY_DIGITS_MAX, QUANTITY_DECIMALS_MAX)

    class Meta:
        abstract = True


class Price(Terms):
    """One row of a version: what a meter costs for a SKU in a region, where `*` matches any.

    key_id: the row's identity across versions; publishing keeps it for a row whose terms did not change.
    """

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    version = models.ForeignKey(
        PriceBookVersion, models.PROTECT, related_name="prices", verbose_name=_("version")
    )
    key_id = models.UUIDField(default=uuid7, editable=False)
    meter = models.ForeignKey(
        Meter, models.PROTECT, to_field="code", db_column="meter", related_name="+", verbose_name=_("meter")
    )
    sku = models.CharField(_("SKU"), max_length=CODE_LENGTH_MAX, default=ANY)
    region = models.CharField(_("region"), max_length=SHORT_CODE_LENGTH_MAX, default=ANY)
    model = models.CharField(_("model"), max_length=16, choices=PriceModel, default=PriceModel.PER_UNIT)

    class Meta:
        verbose_name = _("price")
        verbose_name_plural = _("prices")
        constraints = [
            models.UniqueConstraint(fields=["version", "meter", "sku", "region"], name="pricing_price_once"),
            models.UniqueConstraint(fields=["version", "key_id"], name="pricing_price_key_once"),
            models.CheckConstraint(
                name="pricing_price_model_has_its_columns",
                condition=_model_columns(PriceModel.PER_UNIT, "unit_price")
                | _model_columns(PriceModel.GRADUATED, "tiers")
                | _model_columns(PriceModel.VOLUME, "tiers")
                | _model_columns(PriceModel.PACKAGE, "package_size", "package_price", "free_units"),
            ),
            models.CheckConstraint(
                name="pricing_price_not_negative",
                condition=_price_range("unit_price") & _price_range("package_price"),
            ),
            models.CheckConstraint(
                name="pricing_price_package_positive",
                condition=(Q(package_size=None) | Q(package_size__gt=0, package_size__lt=QUANTITY_LIMIT))
                & (Q(free_units=None) | Q(free_units__gte=0, free_units__lt=QUANTITY_LIMIT)),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.meter_id} · {self.sku} · {self.region}"


class BookAssignmentQuerySet(models.QuerySet["BookAssignment"]):
    """Reads of assignments."""

    def visible_to(self, actor: Actor) -> Self:
        """Return the assignments of the actor's organization."""
        return self.filter(organization_id=actor.organization_id)


class BookAssignment(models.Model):
    """The book that prices an organization's usage from a date on; without one it is the default book.

    effective_from, effective_to: whole UTC hours, half-open; an organization's assignments never overlap.
    """

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    organization = models.ForeignKey(
        "organizations.Organization",
        models.PROTECT,
        related_name="book_assignments",
        verbose_name=_("organization"),
    )
    book = models.ForeignKey(
        PriceBook, models.PROTECT, related_name="assignments", verbose_name=_("price book")
    )
    effective_from = models.DateTimeField(_("effective from"))
    effective_to = models.DateTimeField(_("effective to"), null=True, blank=True)
    created_at = models.DateTimeField(_("created"))

    objects = BookAssignmentQuerySet.as_manager()

    class Meta:
        verbose_name = _("book assignment")
        verbose_name_plural = _("book assignments")
        constraints = [
            models.UniqueConstraint(fields=["organization", "id"], name="pricing_bookassignment_tenant"),
            models.CheckConstraint(
                name="pricing_bookassignment_ends_after_start",
                condition=Q(effective_to=None) | Q(effective_to__gt=F("effective_from")),
            ),
            ExclusionConstraint(
                name="pricing_bookassignment_no_overlap",
                expressions=[
                    ("organization", RangeOperators.EQUAL),
                    (in_force_range(), RangeOperators.OVERLAPS),
                ],
            ),
        ]

    def __str__(self) -> str:
        return f"{self.organization} · {self.book}"


class PriceOverrideQuerySet(models.QuerySet["PriceOverride"]):
    """Reads of overrides."""

    def visible_to(self, actor: Actor) -> Self:
        """Return the overrides of the actor's organization."""
        return self.filter(organization_id=actor.organization_id)

    def in_force_during(self, start: datetime, end: datetime) -> Self:
        """Return the overrides that apply at some moment of a half-open range."""
        return self.filter(Q(effective_to__isnull=True) | Q(effective_to__gt=start), effective_from__lt=end)


class PriceOverride(Terms):
    """What one organization pays instead of its book: a price of its own, or a percentage off (or on) everything else.

    Either a price, with meter, SKU, region, model and terms as a row of a book has them, or `percent`: -20 makes every
    price of the book a fifth lower. A price wins over every row of the book that it matches, and over the percentage.
    key_id: what charges and tiers are counted under; an override that continues another without a change keeps it.
    currency: that of a price; it applies only while the organization is billed in it.
    effective_from, effective_to: whole UTC hours, half-open; those for one target never overlap.
    """

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    organization = models.ForeignKey(
        "organizations.Organization",
        models.PROTECT,
        related_name="price_overrides",
        verbose_name=_("organization"),
    )
    key_id = models.UUIDField(default=uuid7, editable=False)
    currency = models.CharField(_("currency"), max_length=3)
    percent = models.DecimalField(
        _("percent"),
        max_digits=7,
        decimal_places=4,
        null=True,
        blank=True,
        help_text=_("-20 makes every price of the book a fifth lower."),
    )
    meter = models.ForeignKey(
        Meter,
        models.PROTECT,
        to_field="code",
        db_column="meter",
        related_name="+",
        verbose_name=_("meter"),
        null=True,
        blank=True,
    )
    sku = models.CharField(_("SKU"), max_length=CODE_LENGTH_MAX, blank=True)
    region = models.CharField(_("region"), max_length=SHORT_CODE_LENGTH_MAX, blank=True)
    model = models.CharField(_("model"), max_length=16, choices=PriceModel, blank=True)
    effective_from = models.DateTimeField(_("effective from"))
    effective_to = models.DateTimeField(_("effective to"), null=True, blank=True)
    created_at = models.DateTimeField(_("created"))

    objects = PriceOverrideQuerySet.as_manager()

    class Meta:
        verbose_name = _("price override")
        verbose_name_plural = _("price overrides")
        constraints = [
            models.UniqueConstraint(fields=["organization", "id"], name="pricing_priceoverride_tenant"),
            models.CheckConstraint(
                name="pricing_priceoverride_price_or_percent",
                condition=Q(percent=None, meter__isnull=False)
                & ~Q(sku="")
                & ~Q(region="")
                & (
                    _model_columns(PriceModel.PER_UNIT, "unit_price")
                    | _model_columns(PriceModel.GRADUATED, "tiers")
                    | _model_columns(PriceModel.VOLUME, "tiers")
                    | _model_columns(PriceModel.PACKAGE, "package_size", "package_price", "free_units")
                )
                | Q(percent__isnull=False, meter=None, sku="", region="") & _model_columns(""),
            ),
            models.CheckConstraint(
                name="pricing_priceoverride_percent_within",
                condition=Q(percent=None) | Q(percent__gte=-100, percent__lte=PERCENT_MAX) & ~Q(percent=0),
            ),
            models.CheckConstraint(
                name="pricing_priceoverride_not_negative",
                condition=_price_range("unit_price") & _price_range("package_price"),
            ),
            models.CheckConstraint(
                name="pricing_priceoverride_package_positive",
                condition=(Q(package_size=None) | Q(package_size__gt=0, package_size__lt=QUANTITY_LIMIT))
                & (Q(free_units=None) | Q(free_units__gte=0, free_units__lt=QUANTITY_LIMIT)),
            ),
            models.CheckConstraint(
                name="pricing_priceoverride_ends_after_start",
                condition=Q(effective_to=None) | Q(effective_to__gt=F("effective_from")),
            ),
            ExclusionConstraint(
                name="pricing_priceoverride_no_overlap",
                expressions=[
                    ("organization", RangeOperators.EQUAL),
                    (Coalesce("meter", Value("")), RangeOperators.EQUAL),
                    ("sku", RangeOperators.EQUAL),
                    ("region", RangeOperators.EQUAL),
                    (in_force_range(), RangeOperators.OVERLAPS),
                ],
            ),
        ]

    def __str__(self) -> str:
        if self.percent is not None:
            return f"{self.percent.normalize():+f} %".replace("-", "\N{MINUS SIGN}")
        return f"{self.meter_id} · {self.sku} · {self.region}"

    @property
    def is_percentage(self) -> bool:
        """Return whether it changes the book's prices, rather than being a price."""
        return self.percent is not None
