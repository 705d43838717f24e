"""Everything the environment may say, typed; a wrong or missing value stops the start with its name."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

ROOT = Path(__file__).resolve().parent.parent
LOGO_BYTES_MAX = 100_000


class Environment(BaseSettings):
    """The settings an operator can change. `docs/settings.md` is generated from this class."""

    model_config = SettingsConfigDict(extra="ignore", case_sensitive=False)

    database_url: SecretStr | None = Field(
        None, description="PostgreSQL ≥ 15 as a URL. Unset: the embedded server, and DEBUG is on."
    )
    celery_broker_url: SecretStr | None = Field(
        None, description="Redis, Valkey or RabbitMQ as a URL. Unset: the embedded Valkey."
    )
    redis_url: SecretStr | None = Field(
        None,
        description="Redis or Valkey for caches and rate limits. Unset: CELERY_BROKER_URL, or the embedded Valkey.",
    )
    secret_key: SecretStr | None = Field(
        None, description="Django's signing key, ≥ 50 characters. Required with DATABASE_URL."
    )
    api_key_pepper: SecretStr | None = Field(
        None,
        min_length=32,
        description="Mixed into every stored API key hash, ≥ 32 characters; changing it invalidates all keys. "
        "Unset: derived from SECRET_KEY.",
    )
    field_encryption_keys: Annotated[list[SecretStr], NoDecode] = Field(
        default_factory=list,
        description="Fernet keys for second factors and signing keys at rest, comma-separated, newest first; "
        "after adding one, run `manage.py reencrypt_secrets`. "
        "Unset: derived from SECRET_KEY.",
    )
    public_url: str = Field(
        "", description="Origin that links in mails and documents use. Unset: http://127.0.0.1:PORT."
    )
    port: int = Field(8000, ge=1, le=65535, description="Port of the web server started by `make run`.")
    countinghouse_var: Path = Field(
        ROOT / "var", description="Folder for the state of the embedded services and generated secrets."
    )
    allowed_hosts: Annotated[list[str], NoDecode] = Field(
        default_factory=list, description="Host names served besides that of PUBLIC_URL, comma-separated."
    )
    trusted_proxy_count: int = Field(
        0, ge=0, description="Proxies in front: the nth X-Forwarded-For address from the right is the client."
    )
    require_https: bool = Field(False, description="Refuse plain HTTP.")
    return_origins: Annotated[list[str], NoDecode] = Field(
        default_factory=list, description="Origins that checkout may return to, comma-separated."
    )
    metrics_public: bool = Field(False, description="Serve /metrics without a credential.")
    brand_name: str = Field(
        "Countinghouse", min_length=1, description="The operator's name in pages and mails."
    )
    brand_accent: str = Field(
        "",
        pattern=r"^(#[0-9a-fA-F]{6})?$",
        description="The operator's colour, `#rrggbb`, in pages, mails and documents; its lightness moves where text "
        "could not be read. Unset: ledger green.",
    )
    brand_logo: Path | None = Field(
        None,
        description="File with the operator's mark, SVG or PNG up to 100 kB: shown beside the name and as the "
        "icon of the pages.",
    )
    signup_open: bool = Field(True, description="Whether anybody may sign up; off, staff make the accounts.")
    default_currency: str = Field(
        "USD", pattern=r"^[A-Z]{3}$", description="ISO 4217 currency of a new organization."
    )
    api_key_prefix: str = Field(
        "ch", pattern=r"^[a-z][a-z0-9]{0,9}$", description="First part of every API key."
    )
    metering_tick_seconds: int = Field(60, ge=1, description="Seconds between two metering ticks.")
    usage_past_days_max: int = Field(
        35, ge=1, description="Oldest usage accepted without `usage:backfill`, days."
    )
    usage_batch_events_max: int = Field(10_000, ge=1, description="Events accepted in one request.")
    usage_requests_per_minute: int = Field(
        60_000, ge=1, description="Ingestion requests that each integration may send in a minute."
    )
    rate_limits_enabled: bool = Field(
        True, description="Count requests and guesses; off only where something in front of this does."
    )
    process_kind: str = Field(
        "command",
        pattern=r"^(web|worker|beat|command)$",
        description="Set by the Procfile: decides connection pooling and the statement timeout.",
    )
    demo: str = Field(
        "",
        pattern=r"^(fast)?$",
        description="`fast`: a customer of the demonstration runs out of credit within minutes. Development only.",
    )
    log_level: str = Field(
        "INFO", pattern=r"^(DEBUG|INFO|WARNING|ERROR)$", description="Least severe level logged."
    )
    log_format: str = Field(
        "auto", pattern=r"^(auto|json|console)$", description="`auto`: console in DEBUG, else JSON."
    )
    email_url: SecretStr | None = Field(
        None,
        description="SMTP server as smtp://user:password@host:port. Unset: mails wait; "
        "in development they land on /dev/mail.",
    )
    email_from: str = Field("", description="Sender of mails. Unset: billing@ the host of PUBLIC_URL.")
    google_client_id: str = Field("", description="Login with Google: the client. Unset: not offered.")
    google_client_secret: SecretStr | None = Field(None, description="Login with Google: the secret.")
    github_client_id: str = Field("", description="Login with GitHub: the client. Unset: not offered.")
    github_client_secret: SecretStr | None = Field(None, description="Login with GitHub: the secret.")
    apple_client_id: str = Field("", description="Login with Apple: the services id. Unset: not offered.")
    apple_key_id: str = Field("", description="Login with Apple: the id of the key.")
    apple_team_id: str = Field("", description="Login with Apple: the id of the team.")
    apple_private_key: SecretStr | None = Field(
        None, description="Login with Apple: the key as PEM; line ends may be written as \\n."
    )
    oidc_client_id: str = Field(
        "", description="Login with an OpenID Connect provider: the client. Unset: not offered."
    )
    oidc_client_secret: SecretStr | None = Field(None, description="OpenID Connect: the secret.")
    oidc_issuer_url: str = Field(
        "", description="OpenID Connect: the issuer; its configuration is read at /.well-known."
    )
    oidc_authorization_origin: str = Field(
        "", description="OpenID Connect: the origin of its login page, where that is not the issuer's."
    )
    oidc_name: str = Field("Single sign-on", description="OpenID Connect: its name on the button.")
    stripe_secret_key: SecretStr | None = Field(
        None, description="Live or test key. Unset: the local sandbox in DEBUG, else payments are off."
    )
    stripe_webhook_secrets: Annotated[list[SecretStr], NoDecode] = Field(
        default_factory=list,
        description="Signing secrets of the webhook endpoint, comma-separated, newest first.",
    )
    stripe_account: str = Field(
        "", description="Account id (acct_…) that webhooks must name where they name one. Unset: any."
    )
    operator_emails: Annotated[list[str], NoDecode] = Field(
        default_factory=list,
        description="Who hears of differences with Stripe, comma-separated. Unset: the staff who are superusers.",
    )
    refund_alone_max: str = Field(
        "100",
        pattern=r"^\d{1,9}$",
        description="Refunds above this, in major units, are decided by a second person.",
    )

    journal_accounts: dict[str, str] = Field(
        {},
        description="Numbers of the accounts of bookkeeping by ours, as JSON: "
        '`{"customers": "1400", "revenue": "8400", "tax_payable": "1776"}`. An account without one keeps its name.',
    )

    vies_url: str = Field(
        "https://ec.europa.eu/taxation_customs/vies/rest-api/check-vat-number",
        pattern=r"^(off|https://.+)$",
        description="Registry that VAT ids of the European Union are checked against by a job, never in development. "
        "`off`: by form and check digits alone.",
    )

    @field_validator(
        "allowed_hosts",
        "return_origins",
        "field_encryption_keys",
        "stripe_webhook_secrets",
        "operator_emails",
        mode="before",
    )
    @classmethod
    def _split_commas(cls, value: Any) -> Any:
        return (
            [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value
        )

    @field_validator("*", mode="before")
    @classmethod
    def _empty_is_unset(cls, value: Any, info: Any) -> Any:
        # Compose files and process managers pass unset variables as empty strings.
        if value == "" and info.field_name is not None:
            field = cls.model_fields[info.field_name]
            return field.get_default(call_default_factory=True)
        return value

    @field_validator("brand_logo")
    @classmethod
    def _logo_is_an_image(cls, value: Path | None) -> Path | None:
        if value is None:
            return None
        if value.suffix.lower() not in {".svg", ".png"}:
            raise ValueError("a logo is a file that ends in .svg or .png")
        try:
            size = value.stat().st_size
        except OSError as error:
            raise ValueError(f"{value} cannot be read: {error.strerror}") from error
        if not 0 < size <= LOGO_BYTES_MAX:
            raise ValueError("a logo has up to 100 kB")
        return value

    @model_validator(mode="after")
    def _providers_are_complete(self) -> Environment:
        for first, others in (
            ("google_client_id", ("google_client_secret",)),
            ("github_client_id", ("github_client_secret",)),
            ("apple_client_id", ("apple_key_id", "apple_team_id", "apple_private_key")),
            ("oidc_client_id", ("oidc_client_secret", "oidc_issuer_url")),
        ):
            missing = [name.upper() for name in others if not getattr(self, name)]
            if getattr(self, first) and missing:
                raise ValueError(f"{' and '.join(missing)} must be set when {first.upper()} is set")
        return self

    @model_validator(mode="after")
    def _production_needs_its_secrets(self) -> Environment:
        if self.database_url is None:
            return self
        if self.secret_key is None or len(self.secret_key.get_secret_value()) < 50:
            raise ValueError("SECRET_KEY must be set to at least 50 characters when DATABASE_URL is set")
        if self.celery_broker_url is None:
            raise ValueError("CELERY_BROKER_URL must be set when DATABASE_URL is set")
        return self

    @property
    def debug(self) -> bool:
        """Whether this is the embedded development run: true only without DATABASE_URL."""
        return self.database_url is None


def load() -> Environment:
    """Return the environment, or exit naming each variable that is wrong and why."""
    try:
        return Environment()  # type: ignore[call-arg]  # The environment fills it.
    except ValidationError as error:
        lines = ["Countinghouse cannot start; the environment is wrong:"]
        for problem in error.errors(include_url=False, include_input=False):
            name = ".".join(str(part) for part in problem["loc"]).upper()
            message = problem["msg"].removeprefix("Value error, ")
            lines.append(f"  {name}: {message}" if name else f"  {message}")
        lines.append("docs/settings.md describes every variable.")
        sys.stderr.write("\n".join(lines) + "\n")
        sys.exit(os.EX_CONFIG)
