"""The login providers that the environment configures; one that it does not mention does not exist."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from config.environment import Environment

OPENID_CONNECT_ID = "oidc"


def configured(env: Environment) -> dict[str, Any]:
    """Return allauth's SOCIALACCOUNT_PROVIDERS; a provider without an app is neither shown nor served."""
    found: dict[str, Any] = {}
    if env.google_client_id:
        found["google"] = {
            "APPS": [{"client_id": env.google_client_id, "secret": _secret(env.google_client_secret)}],
            "SCOPE": ["profile", "email"],
            "OAUTH_PKCE_ENABLED": True,
        }
    if env.github_client_id:
        found["github"] = {
            "APPS": [{"client_id": env.github_client_id, "secret": _secret(env.github_client_secret)}],
            "SCOPE": ["user:email"],
            "OAUTH_PKCE_ENABLED": True,
        }
    if env.apple_client_id:
        # Apple has no secret: it is a token that the key signs.
        app = {"client_id": env.apple_client_id, "secret": env.apple_key_id, "key": env.apple_team_id}
        key = _secret(env.apple_private_key).replace("\\n", "\n")
        found["apple"] = {"APPS": [{**app, "settings": {"certificate_key": key}}]}
    if env.oidc_client_id:
        app = {"provider_id": OPENID_CONNECT_ID, "name": env.oidc_name, "client_id": env.oidc_client_id}
        app["secret"] = _secret(env.oidc_client_secret)
        settings = {"server_url": env.oidc_issuer_url}
        found["openid_connect"] = {"APPS": [{**app, "settings": settings}], "OAUTH_PKCE_ENABLED": True}
    return found


def origins(env: Environment) -> list[str]:
    """Return where a login's form may lead to: browsers hold `form-action` against redirects as well."""
    found = {
        "https://accounts.google.com": env.google_client_id,
        "https://github.com": env.github_client_id,
        "https://appleid.apple.com": env.apple_client_id,
        _origin(env.oidc_issuer_url): env.oidc_client_id,
        _origin(env.oidc_authorization_origin): env.oidc_client_id,
    }
    return [origin for origin, client_id in found.items() if origin and client_id]


def _secret(value: Any) -> str:
    return str(value.get_secret_value()) if value is not None else ""


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}" if parts.netloc else ""
