"""API keys of organizations and integrations of the operator; of their secrets only a keyed hash is kept."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from datetime import datetime
from typing import ClassVar, Self

from django.conf import settings
from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import FilteredRelation, OuterRef, Q, Subquery
from django.utils.crypto import constant_time_compare
from django.utils.translation import gettext_lazy as _

from apps.core.actor import Actor, ActorKind
from apps.core.ids import uuid7
from apps.core.permissions import ROLE_PERMISSIONS, IntegrationScope, Permission, Role
from apps.credentials import secrets
from apps.organizations.models import Membership, Organization, Project
from apps.organizations.places import Place


class Credential(models.Model):
    """What both kinds of credential have in common. A rotated secret works beside the new one for a while.

    attempts: of the forms whose answers showed a secret of it, so that none shows another.
    """

    marker: ClassVar[str]

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    public_id = models.CharField(_("public id"), max_length=8, unique=True)
    digest = models.BinaryField(_("hash"), max_length=32, editable=False)
    previous_digest = models.BinaryField(_("previous hash"), max_length=32, null=True, editable=False)
    previous_expires_at = models.DateTimeField(_("previous secret works until"), null=True, blank=True)
    name = models.CharField(_("name"), max_length=150)
    scopes = ArrayField(models.CharField(max_length=64), verbose_name=_("scopes"))
    allowed_addresses = ArrayField(
        models.CharField(max_length=49), verbose_name=_("allowed addresses"), default=list, blank=True
    )
    is_active = models.BooleanField(_("active"), default=True)
    expires_at = models.DateTimeField(_("expires"), null=True, blank=True)
    revoked_at = models.DateTimeField(_("revoked"), null=True, blank=True)
    last_used_at = models.DateTimeField(_("last used"), null=True, blank=True)
    last_used_address = models.CharField(_("last used from"), max_length=45, blank=True)
    created_at = models.DateTimeField(_("created"))
    attempts = ArrayField(models.UUIDField(), default=list, db_default=[], editable=False)

    class Meta:
        abstract = True

    def __str__(self) -> str:
        return f"{self.name} ({self.public_id})"

    @property
    def masked(self) -> str:
        """The secret as far as it may be shown."""
        return f"{settings.API_KEY_PREFIX}_{self.marker}_{self.public_id}_…"

    def works(self, now: datetime) -> bool:
        """Return whether the credential is in force: active, not revoked, not expired."""
        return self.is_active and self.revoked_at is None and not self.has_expired(now)

    def has_expired(self, now: datetime) -> bool:
        """Return whether the credential's own time is over."""
        return self.expires_at is not None and self.expires_at <= now

    def holds(self, secret: str, now: datetime) -> bool:
        """Return whether this is the credential's secret, or the one before during the overlap of a rotation."""
        if secrets.matches(secret, self.digest):
            return True
        overlaps = self.previous_expires_at is not None and now < self.previous_expires_at
        return overlaps and self.previous_digest is not None and secrets.matches(secret, self.previous_digest)

    def allows(self, address: str) -> bool:
        """Return whether the credential may be used from an address; an empty list allows every one."""
        if not self.allowed_addresses:
            return True
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError:
            return False
        networks: Iterable[str] = self.allowed_addresses
        return any(parsed in ipaddress.ip_network(network) for network in networks)


class ApiKeyQuerySet(models.QuerySet["ApiKey"]):
    """Reads of API keys."""

    def visible_to(self, actor: Actor) -> Self:
        """Return the keys of the actor's organization."""
        return self.filter(organization_id=actor.organization_id)

    def kept(self, now: datetime) -> Self:
        """Return those that count: neither revoked nor expired, switched off or not."""
        return self.filter(Q(expires_at=None) | Q(expires_at__gt=now), revoked_at=None)

    def made_by(self, membership: Membership) -> Self:
        """Return the keys that a member made or took over, and nobody revoked."""
        return self.filter(
            organization_id=membership.organization_id, created_by_id=membership.user_id, revoked_at=None
        )

    def with_creator_in_force(self, now: datetime) -> Self:
        """Annotate `creator_role`, what the maker of the key is now; `ApiKey.creator_in_force` reads it."""
        membership = Membership.objects.in_force(now).filter(
            organization=OuterRef("organization"), user=OuterRef("created_by")
        )
        return self.annotate(creator_role=Subquery(membership.values("role")[:1]))


class ApiKey(Credential):
    """A key of one organization; it works while the membership of the person who made it does."""

    marker = "live"

    organization = models.ForeignKey(
        Organization, models.PROTECT, related_name="api_keys", verbose_name=_("organization")
    )
    project = models.ForeignKey(
        Project,
        models.PROTECT,
        related_name="api_keys",
        verbose_name=_("project"),
        null=True,
        blank=True,
        db_constraint=False,
    )
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        models.PROTECT,
        related_name="api_keys",
        verbose_name=_("created by"),
        null=True,
        blank=True,
    )

    creator_role: str | None  # Of `with_creator_in_force`.

    objects = ApiKeyQuerySet.as_manager()

    class Meta:
        verbose_name = _("API key")
        verbose_name_plural = _("API keys")
        constraints = [
            models.UniqueConstraint(fields=["organization", "id"], name="credentials_apikey_tenant"),
            models.CheckConstraint(
                name="credentials_apikey_scopes_known",
                condition=Q(scopes__contained_by=[permission.value for permission in Permission]),
            ),
        ]
        indexes = [
            models.Index(fields=["organization", "-created_at", "-id"], name="credentials_apikey_created")
        ]

    @property
    def creator_in_force(self) -> bool:
        """Whether the maker of the key could act; a key that no member made is always in force.

        The key comes from `with_creator_in_force`.
        """
        return self.created_by_id is None or self.creator_role is not None

    @property
    def place(self) -> Place:
        """The organization that the key is of, for a request that it authenticates."""
        return Place(organization=self.organization)

    def actor(self, address: str) -> Actor:
        """Return the actor that this key is, at an address: its scopes, as far as its maker still has them."""
        role = getattr(self, "creator_role", None)
        scopes = frozenset[str](self.scopes)
        return Actor(
            kind=ActorKind.API_KEY,
            id=self.id,
            label=str(self),
            permissions=scopes & ROLE_PERMISSIONS[Role(role)] if role else scopes,
            organization_id=self.organization_id,
            credential_id=self.id,
            address=address,
        )


class Integration(Credential):
    """A credential of the operator's own systems, which may act for any organization within its scopes."""

    marker = "int"

    created_by_label = models.CharField(_("created by"), max_length=254)

    class Meta:
        verbose_name = _("integration")
        verbose_name_plural = _("integrations")
        constraints = [
            models.CheckConstraint(
                name="credentials_integration_scopes_known",
                condition=Q(
                    scopes__contained_by=[scope.value for scope in IntegrationScope]
                    + [permission.value for permission in Permission]
                ),
            )
        ]
        indexes = [models.Index(fields=["-created_at", "-id"], name="credentials_integration_made")]

    def actor(self, address: str) -> Actor:
        """Return the actor that this integration is, at an address, of no organization yet."""
        return Actor(
            kind=ActorKind.INTEGRATION,
            id=self.id,
            label=str(self),
            permissions=frozenset(self.scopes),
            credential_id=self.id,
            address=address,
        )


class KeyState(models.TextChoices):
    """The life of a signing key: published first, then signing, then only verifying for a while."""

    NEXT = "next", _("Next")
    ACTIVE = "active", _("Active")
    RETIRED = "retired", _("Retired")


class SigningKey(models.Model):
    """A key that signs access tokens; its private half is encrypted."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    kid = models.CharField(_("key id"), max_length=36, unique=True)
    state = models.CharField(_("state"), max_length=8, choices=KeyState)
    private_key = models.TextField(editable=False)
    public_jwk = models.JSONField(_("public key"))
    created_at = models.DateTimeField(_("created"))
    activated_at = models.DateTimeField(_("active since"), null=True, blank=True)
    retired_at = models.DateTimeField(_("retired"), null=True, blank=True)

    class Meta:
        verbose_name = _("signing key")
        verbose_name_plural = _("signing keys")
        constraints = [
            models.UniqueConstraint(
                fields=["state"],
                condition=Q(state__in=[KeyState.NEXT, KeyState.ACTIVE]),
                name="credentials_signingkey_one_of_each",
            ),
            models.CheckConstraint(
                name="credentials_signingkey_retired_has_moment",
                condition=Q(state=KeyState.RETIRED, retired_at__isnull=False)
                | Q(state__in=[KeyState.NEXT, KeyState.ACTIVE], retired_at__isnull=True),
            ),
        ]

    def __str__(self) -> str:
        return self.kid


class TokenFamilyQuerySet(models.QuerySet["TokenFamily"]):
    """Reads of logins over REST."""

    def with_place(self, memberships: models.QuerySet[Membership]) -> Self:
        """Read the person along, and with its organization the first of some memberships that is theirs."""
        first = Q(user__memberships__pk=Subquery(memberships.values("pk")[:1]))
        part = FilteredRelation("user__memberships", condition=first)
        return self.annotate(part=part).select_related("user", "part__organization")


class TokenFamily(models.Model):
    """One login of a person over REST: all tokens that came of it live and die together.

    password_stamp: of the password at login, so that a changed one ends the family.
    """

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.PROTECT, related_name="token_families", verbose_name=_("user")
    )
    password_stamp = models.CharField(max_length=128, editable=False)
    address = models.CharField(_("address"), max_length=45, blank=True)
    user_agent = models.CharField(_("program"), max_length=200, blank=True)
    created_at = models.DateTimeField(_("created"))
    last_used_at = models.DateTimeField(_("last used"))
    stepped_up_at = models.DateTimeField(_("stepped up"))
    expires_at = models.DateTimeField(_("expires"))
    revoked_at = models.DateTimeField(_("revoked"), null=True, blank=True)

    objects = TokenFamilyQuerySet.as_manager()

    class Meta:
        verbose_name = _("login over REST")
        verbose_name_plural = _("logins over REST")
        indexes = [models.Index(fields=["user", "-created_at"], name="credentials_tokenfamily_user")]

    def __str__(self) -> str:
        return str(self.id)

    def knows_password(self) -> bool:
        """Return whether the person's password still is the one of this login."""
        return constant_time_compare(self.password_stamp, self.user.get_session_auth_hash())

    @property
    def place(self) -> Place | None:
        """The organization that the request names and the person's part in it, if `with_place` found one."""
        membership: Membership | None = getattr(self, "part", None)
        if membership is None:
            return None
        membership.user = self.user
        return Place(organization=membership.organization, membership=membership)


class RefreshToken(models.Model):
    """One refresh token of a family; a used one that comes again gives the theft away."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    family = models.ForeignKey(TokenFamily, models.PROTECT, related_name="refresh_tokens")
    digest = models.BinaryField(max_length=32, unique=True, editable=False)
    created_at = models.DateTimeField(_("created"))
    used_at = models.DateTimeField(_("used"), null=True, blank=True)

    class Meta:
        verbose_name = _("refresh token")
        verbose_name_plural = _("refresh tokens")

    def __str__(self) -> str:
        return str(self.id)
