"""Django's settings; what differs between machines comes from `config.environment`."""

from __future__ import annotations

import base64
import logging
from email.utils import formataddr
from typing import Any
from urllib.parse import urlsplit

from django.utils.csp import CSP
from django.utils.translation import gettext_lazy as _

from config import backing, environment, logs, providers, sandbox, schedule, secret_keys

ROOT = environment.ROOT
ENV = environment.load()
DEBUG = ENV.debug
VAR = ENV.countinghouse_var.expanduser().resolve()
PROCESS_KIND = ENV.process_kind

# Services

_addresses = backing.addresses(ENV)
DATABASE_URL, BROKER_URL, REDIS_URL = _addresses.database, _addresses.broker, _addresses.redis

LOCK_TIMEOUT_MS = 4_000
# Pages add up months of hourly usage; within PostgreSQL's own 4 MB it sorts them on disk.
WORK_MEM_MB = 16
STATEMENT_TIMEOUT_MS = {"web": 15_000, "worker": 85_000}.get(PROCESS_KIND, 0)


DATABASES = {
    "default": backing.database(
        DATABASE_URL,
        process_kind=PROCESS_KIND,
        lock_timeout_ms=LOCK_TIMEOUT_MS,
        statement_timeout_ms=STATEMENT_TIMEOUT_MS,
        work_mem_mb=WORK_MEM_MB,
    )
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

CACHES = backing.caches(REDIS_URL)

# Secrets


SECRET_KEY = ENV.secret_key.get_secret_value() if ENV.secret_key else secret_keys.development_secret(VAR)


API_KEY_PEPPER = (
    ENV.api_key_pepper.get_secret_value().encode()
    if ENV.api_key_pepper
    else secret_keys.derived(SECRET_KEY, "api-key-pepper")
)
FIELD_ENCRYPTION_KEYS = [key.get_secret_value() for key in ENV.field_encryption_keys] or [
    base64.urlsafe_b64encode(secret_keys.derived(SECRET_KEY, "field-encryption")).decode()
]

# The product

PORT = ENV.port
PUBLIC_URL = (ENV.public_url or f"http://127.0.0.1:{PORT}").rstrip("/")
BRAND_NAME = ENV.brand_name
BRAND_ACCENT = ENV.brand_accent
BRAND_LOGO = ENV.brand_logo
SIGNUP_OPEN = ENV.signup_open
DEFAULT_CURRENCY = ENV.default_currency
API_KEY_PREFIX = ENV.api_key_prefix
METERING_TICK_SECONDS = ENV.metering_tick_seconds
DEMO = ENV.demo
USAGE_PAST_DAYS_MAX = ENV.usage_past_days_max
USAGE_BATCH_EVENTS_MAX = ENV.usage_batch_events_max
USAGE_REQUESTS_PER_MINUTE = ENV.usage_requests_per_minute
RATE_LIMITS_ENABLED = ENV.rate_limits_enabled
USAGE_FUTURE_SECONDS_MAX = 300
METRICS_PUBLIC = ENV.metrics_public
REQUIRE_HTTPS = ENV.require_https
RETURN_ORIGINS = ENV.return_origins
TRUSTED_PROXY_COUNT = ENV.trusted_proxy_count
BODY_BYTES_MAX = 1024 * 1024
USAGE_BODY_BYTES_MAX = 8 * 1024 * 1024
DATA_UPLOAD_MAX_MEMORY_SIZE = USAGE_BODY_BYTES_MAX

# Stripe: the operator's account, or in the development run the sandbox beside it.

_sandbox = sandbox.find(VAR) if DEBUG and ENV.stripe_secret_key is None else None
STRIPE_SECRET_KEY = ENV.stripe_secret_key.get_secret_value() if ENV.stripe_secret_key else ""
STRIPE_WEBHOOK_SECRETS = [secret.get_secret_value() for secret in ENV.stripe_webhook_secrets]
STRIPE_ACCOUNT = ENV.stripe_account
OPERATOR_EMAILS = ENV.operator_emails
WEBHOOK_BODY_BYTES_MAX = 256 * 1024
# On which days after an invoice opened the default card is charged, by plan.
PAYMENT_RETRY_DAYS = {
    "default": (0, 3, 7, 14),
    "enterprise": (0, 7, 14),
    "sovereign": (0,),
    "classified": (0,),
}
REFUND_ALONE_MAX = ENV.refund_alone_max
STRIPE_API_BASE = ""
STRIPE_CHECKOUT_ORIGIN = "https://checkout.stripe.com"
if _sandbox is not None:
    STRIPE_SECRET_KEY, STRIPE_WEBHOOK_SECRETS = _sandbox.secret_key, [_sandbox.webhook_secret]
    STRIPE_API_BASE = STRIPE_CHECKOUT_ORIGIN = _sandbox.url

# What a lower app asks of a higher one, by dotted name.
CELERY_APP = "config.celery"
ENVIRONMENT_CLASS = "config.environment.Environment"
SESSION_PROOF = "apps.identity.sessions.proved_at"
SESSION_STEP_UP = "apps.identity.sessions.ask_again"
SHELL_MEMBERSHIPS = "apps.organizations.selectors.memberships_of"
PAGE_BANNERS = [
    "apps.billing.banners.billing_state",
    "apps.organizations.banners.second_factor",
    "apps.organizations.banners.ownership_offer",
]
REQUEST_LIMITER = "apps.limits.requests"
RATE_LIMIT_POLICY = "apps.quotas.rates.rates_of"
ORGANIZATION_RESOLVER = "apps.organizations.services.resolve_for_actor"
# In the order in which money moves on, so that none is passed by between two of them: a payment or a usage event that
# is done when it is asked about is credit, or owed, by then; what was used is invoiced last.
ORGANIZATION_DELETE_BLOCKERS = [
    "apps.payments.blockers.open_business",
    "apps.billing.blockers.open_business",
    "apps.invoices.blockers.open_business",
]
PERSON_ARRIVES = "apps.organizations.services.give_first_organization"
PERSON_PROGRAMS = "apps.credentials.selectors.programs_of"
PERSON_PROGRAMS_END = "apps.credentials.services.end_logins"
INVITED_ADDRESS = "apps.organizations.services.invited_address"
PERSON_LEAVES = "apps.organizations.services.leave_everywhere"
MEMBER_HAS_KEYS = "apps.credentials.selectors.has_keys"
MEMBER_KEYS_SETTLER = "apps.credentials.services.settle_keys_of_leaver"
LEDGER_PROOFS = [
    "apps.billing.proofs.prove_charges",
    "apps.vouchers.proofs.prove_redemptions",
    "apps.invoices.proofs.prove_invoices",
    "apps.payments.proofs.prove_payments",
]
METRICS_COLLECTORS = [
    "apps.metering.metrics.UsageCollector",
    "apps.notifications.metrics.MailCollector",
    "apps.audit.metrics.AuditCollector",
    "apps.outbox.metrics.OutboxCollector",
]
RATED_UNTIL = "apps.billing.selectors.rated_until"
RATED_OTHERWISE = "apps.billing.selectors.rated_otherwise"
LIMIT_CHECK = "apps.quotas.services.check"
# What an operator's own machine does not ask for: a public registry, about names that are made up.
VIES_URL = "" if DEBUG or ENV.vies_url == "off" else ENV.vies_url
JOURNAL_ACCOUNTS = ENV.journal_accounts
TAX_ENGINE = "apps.invoices.tax.rules.decide"
RECEIPT_ALLOCATOR = "apps.invoices.services.allocate_receipt"

# Django

INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django.contrib.postgres",
    "django.contrib.humanize",
    "apps.backoffice.apps.BackofficeAdminConfig",
    "rest_framework",
    "django_filters",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "allauth",
    "allauth.account",
    "allauth.mfa",
    "allauth.usersessions",
    "allauth.socialaccount",
    "allauth.socialaccount.providers.google",
    "allauth.socialaccount.providers.github",
    "allauth.socialaccount.providers.apple",
    "allauth.socialaccount.providers.openid_connect",
    "django_otp",
    "django_structlog",
    "django_htmx",
    "apps.core",
    "apps.audit",
    "apps.outbox",
    "apps.idempotency",
    "apps.limits",
    "apps.ledger",
    "apps.notifications",
    "apps.identity",
    "apps.organizations",
    "apps.credentials",
    "apps.pricing",
    "apps.metering",
    "apps.quotas",
    "apps.billing",
    "apps.vouchers",
    "apps.invoices",
    "apps.payments",
    "apps.backoffice",
    "apps.portal",
]

MIDDLEWARE = [
    "apps.core.http.correlation.CorrelationMiddleware",
    "apps.core.http.health.ProbesByAddress",
    "django.middleware.security.SecurityMiddleware",
    "django.middleware.csp.ContentSecurityPolicyMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "apps.limits.middleware.RateLimitMiddleware",
    "apps.core.http.limits.BodyLimitMiddleware",
    "apps.core.http.pages_only.PageSession",
    "django.middleware.locale.LocaleMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "apps.core.http.pages_only.PageUser",
    "apps.core.http.pages_only.PageOTP",
    "apps.core.http.pages_only.PageMessages",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "allauth.account.middleware.AccountMiddleware",
    "apps.core.http.pages_only.PageHtmx",
    "django_structlog.middlewares.RequestMiddleware",
]

ROOT_URLCONF = "config.urls"
WSGI_APPLICATION = "config.wsgi.application"
APPEND_SLASH = True
ALLOWED_HOSTS = [*ENV.allowed_hosts, urlsplit(PUBLIC_URL).hostname or "127.0.0.1"]
if DEBUG:
    ALLOWED_HOSTS += ["127.0.0.1", "localhost", "[::1]"]

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [ROOT / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "apps.core.http.context.brand",
                "apps.core.http.context.shell",
            ],
        },
    }
]

AUTH_USER_MODEL = "identity.User"
AUTHENTICATION_BACKENDS = ["apps.identity.backends.AccountBackend"]
AUTH_PASSWORD_VALIDATORS = [
    {
        "NAME": "apps.identity.passwords.NotAboutYou",
        "OPTIONS": {"user_attributes": ("email", "name")},
    },
    {"NAME": "apps.identity.passwords.LongEnough", "OPTIONS": {"min_length": 10}},
    {"NAME": "apps.identity.passwords.NotCommon"},
]
LOGIN_URL = "account_login"
LOGIN_REDIRECT_URL = "home"
LOGOUT_REDIRECT_URL = "/"

ACCOUNT_ADAPTER = "apps.identity.adapters.AccountAdapter"
ACCOUNT_LOGIN_METHODS = {"email"}
ACCOUNT_SIGNUP_FIELDS = ["email*", "password1*"]  # A second field only makes people paste.
ACCOUNT_USER_MODEL_USERNAME_FIELD = None
ACCOUNT_EMAIL_VERIFICATION = "mandatory"
ACCOUNT_UNIQUE_EMAIL = True
ACCOUNT_PREVENT_ENUMERATION = True
ACCOUNT_LOGOUT_ON_GET = False
ACCOUNT_SESSION_REMEMBER = True
ACCOUNT_EMAIL_NOTIFICATIONS = True
ACCOUNT_REAUTHENTICATION_REQUIRED = True
ACCOUNT_REAUTHENTICATION_TIMEOUT = 600
ACCOUNT_CHANGE_EMAIL = True  # One address for each account; a new one replaces it once it is confirmed.
# Wishes for a new password are rows; what allauth itself would mail to strangers stays unsent.
ACCOUNT_EMAIL_UNKNOWN_ACCOUNTS = False
PASSWORD_RESET_TIMEOUT = 24 * 3600
# Counted by our service, which also counts while Valkey is away.
ACCOUNT_RATE_LIMITS = {"reset_password": None}
ACCOUNT_FORMS = {
    "signup": "apps.identity.forms.SignupForm",
    "login": "apps.identity.forms.LoginForm",
    "reset_password": "apps.identity.forms.ResetPasswordForm",
    "reset_password_from_key": "apps.identity.forms.ResetPasswordKeyForm",
    "change_password": "apps.identity.forms.ChangePasswordForm",
    "set_password": "apps.identity.forms.SetPasswordForm",
    "reauthenticate": "apps.identity.forms.ConfirmPasswordForm",
    "add_email": "apps.identity.forms.AddEmailForm",
}
SOCIALACCOUNT_ADAPTER = "apps.identity.adapters.SocialAccountAdapter"
SOCIALACCOUNT_PROVIDERS = providers.configured(ENV)
# An identity is (provider, subject): an address never opens an account that a provider did not make.
SOCIALACCOUNT_EMAIL_AUTHENTICATION = False
SOCIALACCOUNT_STORE_TOKENS = False
MFA_ADAPTER = "apps.identity.adapters.MFAAdapter"
MFA_SUPPORTED_TYPES = ["totp", "webauthn", "recovery_codes"]
MFA_WEBAUTHN_USER_VERIFICATION = "required"
MFA_PASSKEY_LOGIN_ENABLED = True
# Nobody logs in with an unproved address; one waiting to replace the present one must not stand in the way.
MFA_ALLOW_UNVERIFIED_EMAIL = True
MFA_TOTP_ISSUER = BRAND_NAME
MFA_RECOVERY_CODES_SHOW_ONCE = True
# Wherever allauth takes a code, our service spends it, so that none passes twice.
MFA_FORMS = {
    "authenticate": "apps.identity.forms.AuthenticateForm",
    "reauthenticate": "apps.identity.forms.ReauthenticateForm",
    "activate_totp": "apps.identity.forms.ActivateTOTPForm",
    "add_webauthn": "apps.identity.forms.AddPasskeyForm",
    "edit_webauthn": "apps.identity.forms.RenamePasskeyForm",
}
ALLAUTH_TRUSTED_PROXY_COUNT = TRUSTED_PROXY_COUNT
OTP_ADMIN_HIDE_SENSITIVE_DATA = True

SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = PUBLIC_URL.startswith("https://")
SESSION_COOKIE_HTTPONLY = True
SESSION_SERIALIZER = "apps.core.http.sessions.EncryptedSerializer"
SESSION_COOKIE_SAMESITE = "Lax"
CSRF_COOKIE_HTTPONLY = True
CSRF_FAILURE_VIEW = "apps.core.http.errors.csrf_failure"
CSRF_TRUSTED_ORIGINS = [PUBLIC_URL]
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if TRUSTED_PROXY_COUNT else None
SECURE_SSL_REDIRECT = False  # Refused, not redirected: a redirect would hide a key already sent in clear.
SECURE_HSTS_SECONDS = 31_536_000 if REQUIRE_HTTPS else 0
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
SECURE_CSP = {
    "default-src": [CSP.NONE],
    "script-src": [CSP.SELF],
    "style-src": [CSP.SELF],
    "img-src": [CSP.SELF, "data:"],
    "font-src": [CSP.SELF],
    "connect-src": [CSP.SELF],
    # A form that starts a payment is answered with a redirect to the hosted page.
    "form-action": [CSP.SELF, STRIPE_CHECKOUT_ORIGIN],
    "frame-ancestors": [CSP.NONE],
    "base-uri": [CSP.NONE],
    "manifest-src": [CSP.SELF],
}

LANGUAGE_CODE = "en"
LANGUAGES = [("en", _("English"))]
LOCALE_PATHS = [ROOT / "locale"]
FORMAT_MODULE_PATH = ["config.formats"]
FORM_RENDERER = "apps.core.form_words.Renderer"
TIME_ZONE = "UTC"
USE_TZ = True
USE_I18N = True

STATIC_URL = "/static/"
STATIC_ROOT = None if DEBUG else ROOT / "staticfiles"  # In development files are served from where they are.
STATICFILES_DIRS = [ROOT / "static"]
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {
        "BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"
        if DEBUG
        else "whitenoise.storage.CompressedManifestStaticFilesStorage"
    },
}
WHITENOISE_USE_FINDERS = DEBUG
WHITENOISE_AUTOREFRESH = False


MAILERS = {"default": backing.mailer(ENV)}
DEFAULT_FROM_EMAIL = ENV.email_from or formataddr((BRAND_NAME, f"billing@{urlsplit(PUBLIC_URL).hostname}"))

# REST

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["apps.credentials.authentication.CredentialAuthentication"],
    "DEFAULT_PERMISSION_CLASSES": [],
    "DEFAULT_RENDERER_CLASSES": ["apps.core.http.rendering.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["apps.core.http.parsing.JSONParser"],
    "DEFAULT_SCHEMA_CLASS": "apps.core.http.openapi.Schema",
    "EXCEPTION_HANDLER": "apps.core.http.errors.exception_handler",
    "UNAUTHENTICATED_USER": None,
    "COERCE_DECIMAL_TO_STRING": True,
}
SPECTACULAR_SETTINGS = {
    "TITLE": "Countinghouse",
    "DESCRIPTION": "Organizations, usage, prices, credit and invoices of a GPU cloud.",
    "VERSION": "1",
    "OAS_VERSION": "3.1.1",
    "SCHEMA_PATH_PREFIX": r"/api/v1",
    "SERVE_INCLUDE_SCHEMA": False,
    "COMPONENT_SPLIT_REQUEST": True,
    "COMPONENT_SPLIT_PATCH": False,  # The bodies of changes say themselves what must be there.
    "PREPROCESSING_HOOKS": ["apps.core.http.openapi.keep_canonical_paths"],
    "POSTPROCESSING_HOOKS": ["apps.core.http.openapi.document_errors"],
    "AUTHENTICATION_WHITELIST": ["apps.credentials.authentication.CredentialAuthentication"],
}

# Celery

CELERY_BROKER_URL = BROKER_URL
CELERY_TASK_ACKS_LATE = True
CELERY_TASK_REJECT_ON_WORKER_LOST = True
CELERY_TASK_TIME_LIMIT = 90
CELERY_TASK_SERIALIZER = CELERY_RESULT_SERIALIZER = "json"
CELERY_ACCEPT_CONTENT = ["json"]
CELERY_TASK_IGNORE_RESULT = True
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
# A publisher that waits for a dead broker would hold the request; the sweep re-queues what was not sent.
CELERY_TASK_PUBLISH_RETRY = False
CELERY_BROKER_CONNECTION_TIMEOUT = 1
CELERY_BROKER_TRANSPORT_OPTIONS: dict[str, Any] = {"max_retries": 0}
if BROKER_URL.startswith("redis"):
    CELERY_BROKER_TRANSPORT_OPTIONS |= {
        "socket_connect_timeout": 1,
        # Without the last two a lost task comes back only after about 100 seconds whatever the timeout.
        "visibility_timeout": 120,
        "unacked_restore_interval": 10,
        "unacked_restore_throttle": 1,
    }
CELERY_BEAT_SCHEDULE = schedule.beat_schedule(metering_tick_seconds=METERING_TICK_SECONDS)

# Logs

logs.configure()
LOGGING = logs.logging(
    level=ENV.log_level, is_console=ENV.log_format == "console" or (ENV.log_format == "auto" and DEBUG)
)
DJANGO_STRUCTLOG_CELERY_ENABLED = True
DJANGO_STRUCTLOG_STATUS_START_LOG_LEVEL = (
    logging.DEBUG
)  # One line for each request: the one that knows its end.
DJANGO_STRUCTLOG_IP_LOGGING_ENABLED = False  # It believes X-Forwarded-For; our own address is bound instead.
DJANGO_STRUCTLOG_USER_ID_FIELD = None
