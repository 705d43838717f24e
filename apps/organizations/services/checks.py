"""What a name, a slug and a time zone look like, and how many of a thing there may be."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator
from datetime import datetime
from uuid import UUID

from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.validators import validate_email
from django.utils.functional import Promise
from django.utils.module_loading import import_string
from django.utils.text import slugify
from django.utils.translation import gettext_lazy as _

from apps.core import periods
from apps.core.actor import Actor, ActorKind
from apps.core.errors import Conflict, FieldError, ValidationFailed
from apps.organizations.models import SLUG_LENGTH_MAX, SLUG_PATTERN, UUID_PATTERN

NAME_LENGTH_MAX = 150
# First words of pages that belong to no organization, under the same path as the organizations.
RESERVED_SLUGS = frozenset({"account", "help", "invites", "new", "search", "switch"})


class SlugTaken(Conflict):
    """The slug is, or once was, that of another organization or project."""

    code = "slug_taken"
    default_message = _("This slug is taken. Choose another one.")


def check(**problems: str | Promise | None) -> None:
    """Raise ValidationFailed if any of the named fields has a problem."""
    if fields := [
        FieldError(path=name, code="invalid", message=str(problem))
        for name, problem in problems.items()
        if problem
    ]:
        raise ValidationFailed(fields=fields)


def wrong_name(name: str) -> str | Promise | None:
    """Return what is wrong with a name, or None."""
    if not name.strip() or len(name) > NAME_LENGTH_MAX:
        return _("A name has 1 to 150 characters.")
    if any(unicodedata.category(character).startswith("C") for character in name):
        return _("A name has no control characters.")
    return None


def wrong_slug(slug: str) -> str | Promise | None:
    """Return what is wrong with a slug's form, or None."""
    if (
        len(slug) > SLUG_LENGTH_MAX
        or not re.fullmatch(SLUG_PATTERN, slug)
        or re.fullmatch(UUID_PATTERN, slug)
    ):
        return _("A slug has up to 63 lower-case letters, digits and single hyphens, and is no UUID.")
    return None


def wrong_organization_slug(slug: str) -> str | Promise | None:
    """Return what is wrong with the slug of an organization, whose pages lie under it, or None."""
    return _("This slug is reserved. Choose another one.") if slug in RESERVED_SLUGS else wrong_slug(slug)


def slugs_from(
    name: str, *, instead: str, wrong: Callable[[str], str | Promise | None] = wrong_slug
) -> Iterator[str]:
    """Yield slugs for a name: its own, then with a number that is not taken by somebody of the same name.

    instead: the word that stands for a name without letters, and before one whose own slug would be wrong.
    """
    words = [word for word in slugify(name).replace("_", "-").split("-") if word]
    base = "-".join(words)[: SLUG_LENGTH_MAX - 5].strip("-") or instead
    if wrong(base):
        base = f"{instead}-{base}"[: SLUG_LENGTH_MAX - 5]
    yield base
    for number in range(2, 10_000):
        yield f"{base}-{number}"


def wrong_timezone(timezone: str) -> str | Promise | None:
    return (
        None if timezone in periods.zone_names() else _("This is not an IANA time zone, such as Europe/Oslo.")
    )


def wrong_email(email: str) -> str | Promise | None:
    """Return what is wrong with an address, or None; none at all is fine."""
    if not email:
        return None
    try:
        validate_email(email)
    except ValidationError:
        return _("This is not an e-mail address.")
    return None if len(email) <= 254 else _("This address is too long.")


def check_quota(*, actor: Actor, organization_id: UUID, quota: str, using: int, now: datetime) -> None:
    """Raise what settings.LIMIT_CHECK raises if an organization may not have this many; called under its row's lock.

    using: how many there will be. Staff and the operator's own commands are not bound.
    """
    if actor.kind not in {ActorKind.STAFF, ActorKind.SYSTEM}:
        import_string(settings.LIMIT_CHECK)(
            organization_id=organization_id, quota=quota, using=using, now=now
        )
