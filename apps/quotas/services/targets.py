"""What a limit may be about, and how large it may be."""

from __future__ import annotations

from django.utils.translation import gettext as _

from apps.core.errors import FieldError, ValidationFailed
from apps.quotas import selectors
from apps.quotas.models import ANY, RATES, Quota, Target

VALUE_MAX = 10**12


def target_of(quota: str, family: str = "", region: str = "") -> Target:
    """Return the target of what somebody typed: nothing is everything, families are in lower case.

    Raises ValidationFailed for a quota, family or region that does not exist.
    """
    target = Target(quota, family.strip().lower() or ANY, region.strip() or ANY)
    check_target(target)
    return target


def check_target(target: Target) -> None:
    """Raise ValidationFailed for a quota, family or region that does not exist, or a place where none counts."""
    wrong: dict[str, str] = {}
    if target.quota not in Quota.values:
        wrong["quota"] = _("There is no such quota.")
    elif target.quota != Quota.CONCURRENT_GPUS and target != Target(target.quota):
        wrong["quota"] = _("Only GPUs at once are limited by family and region; leave both at every one (*).")
    if target.family != ANY and not selectors.is_family(target.family):
        wrong["family"] = _("No SKU is of this family.")
    if target.region != ANY and not selectors.is_region(target.region):
        wrong["region"] = _("There is no such region.")
    _refuse(wrong)


def check_limit(target: Target, value: int | None, *, path: str = "value") -> None:
    """Raise ValidationFailed for a limit that could not be one."""
    least = 1 if target.quota in RATES else 0
    if value is not None and not least <= value <= VALUE_MAX:
        _refuse({path: _("This limit is a whole number from %(least)d on.") % {"least": least}})


def _refuse(wrong: dict[str, str]) -> None:
    if wrong:
        raise ValidationFailed(
            fields=[FieldError(path=path, code="invalid", message=message) for path, message in wrong.items()]
        )
