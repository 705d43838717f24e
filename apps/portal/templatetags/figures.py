"""How numbers and moments read on every page: a true minus, the currency's own minor units, one clock."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal

from django import template
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from apps.core import money
from apps.core.charts import Bar

register = template.Library()

MINUS = "\N{MINUS SIGN}"
NOTHING = "\N{EN DASH}"


@register.filter
def amount(value: int | Decimal | str | None, currency: str) -> str:
    """Return an amount with the currency's minor units, such as `1,234.50`; its code stands in the header.

    value: micros when an int, major units when a Decimal or the text of one; rounded half up for display only.
    """
    if value is None:
        return NOTHING
    major = _major(value)
    return _grouped(major, money.exponent(currency))


@register.filter
def taken(value: int | Decimal | str, currency: str) -> str:
    """Return an amount that is taken off, with its minus unless there is nothing to take."""
    return amount(-_major(value) if _major(value) else Decimal(0), currency)


@register.filter
def meter(code: str) -> str:
    """Return what a meter counts, in words."""
    known = {"gpu_hours": _("GPU-hours"), "instance_hours": _("instance-hours")}
    return known.get(code) or code.replace("_", " ")


@register.filter
def counted_unit(code: str) -> str:
    """Return what is counted for a meter, in words: hours are sold, seconds are counted."""
    known = {"gpu_hours": _("GPU-seconds"), "instance_hours": _("instance-seconds")}
    return known.get(code) or meter(code)


@register.filter
def amount_exact(value: int | Decimal | str, currency: str) -> str:
    """Return an amount with every digit that it has, at least the currency's minor units."""
    return money.grouped(_major(value), decimals_min=money.exponent(currency))


@register.filter
def amount_fine(value: int | Decimal | str) -> str:
    """Return an amount with six decimals, for columns where fractions of a minor unit add up.

    value: micros when an int, major units when a Decimal or the text of one.
    """
    return _grouped(_major(value), 6)


@register.filter
def exactly(value: Decimal | int | str | None, decimals_min: int = 0) -> str:
    """Return a quantity or a unit price with every digit that it has, at least so many decimals."""
    return NOTHING if value is None else money.grouped(Decimal(value), decimals_min=decimals_min)


@register.filter
def quantity(value: Decimal | int | str | None, decimals: int = 2) -> str:
    """Return a quantity with a fixed number of decimals, two unless told."""
    return NOTHING if value is None else _grouped(Decimal(value), decimals)


@register.simple_tag
def moment(at: datetime | None, now: datetime | None = None) -> SafeString | str:
    """Return a `<time>`: relative under a day, absolute beyond, with the exact UTC in its title."""
    if at is None:
        return NOTHING
    return format_html(
        '<time datetime="{}" title="{} UTC">{}</time>',
        at.isoformat(),
        f"{at.astimezone(timezone.get_default_timezone()):%Y-%m-%d %H:%M:%S}",
        _when(at, now or timezone.now()),
    )


@register.simple_tag
def segments(bar: Bar) -> SafeString:
    """Return the parts of a bar as SVG; by the thousand, as a chart by the hour has them, a template takes its time."""
    return format_html_join(
        "",
        '<rect x="{}.1" y="{}" width=".8" height="{}" class="series-{}"><title>{}</title></rect>',
        ((bar.x, part.y, part.height, part.colour, part.title) for part in bar.segments),
    )


def _major(value: int | Decimal | str) -> Decimal:
    return money.from_micros(value) if isinstance(value, int) else Decimal(value)


def _when(at: datetime, now: datetime) -> str:
    ago = now - at
    if ago < timedelta(0) or ago >= timedelta(days=1):
        return date_format(timezone.localtime(at), "j M Y, H:i")
    seconds = int(ago.total_seconds())
    if seconds < 1:
        return _("now")
    if seconds < 60:
        return ngettext("%(count)d second ago", "%(count)d seconds ago", seconds) % {"count": seconds}
    if seconds < 3600:
        minutes = seconds // 60
        return ngettext("%(count)d minute ago", "%(count)d minutes ago", minutes) % {"count": minutes}
    hours = seconds // 3600
    return ngettext("%(count)d hour ago", "%(count)d hours ago", hours) % {"count": hours}


def _grouped(value: Decimal, decimals: int) -> str:
    rounded = value.quantize(Decimal(1).scaleb(-decimals), rounding=ROUND_HALF_UP, context=money.EXACT)
    digits = f"{abs(rounded):,.{decimals}f}"
    return f"{MINUS}{digits}" if rounded < 0 else digits
