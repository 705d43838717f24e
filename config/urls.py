"""Every URL: the API thrice, the pages of each app, the staff admin, and what machines ask for."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from django.apps import apps
from django.contrib import admin
from django.urls import URLPattern, URLResolver, include, path, re_path
from django.utils.module_loading import module_has_submodule

from apps.core.http import brand, health, openapi, prometheus
from apps.core.http.views import UnknownPath

# The paths that clients of one of our predecessors call without a prefix.
UNPREFIXED = ("auth/", "orgs", "invites/")


def _routes(table: str) -> list[URLPattern | URLResolver]:
    """Return what the `urls` modules of our apps list under a name, in the order of INSTALLED_APPS."""
    found: list[Any] = []
    for config in apps.get_app_configs():
        if config.name.startswith("apps.") and config.module and module_has_submodule(config.module, "urls"):
            found += getattr(import_module(f"{config.name}.urls"), table, [])
    return found


api_urlpatterns = _routes("api_urlpatterns")

urlpatterns = [
    path("healthz", health.Healthz.as_view()),
    path("readyz", health.Readyz.as_view()),
    path("metrics", prometheus.Metrics.as_view(), name="metrics"),
    *(
        path(f"{prefix}monitoring/health/detailed", health.DetailedHealth.as_view())
        for prefix in ("", "v1/", "api/v1/")
    ),
    path("brand/accent.css", brand.accent, name="brand-accent"),
    path("brand/logo", brand.logo, name="brand-logo"),
    path("brand/icon.svg", brand.icon, name="brand-icon"),
    path("api/v1/openapi.json", openapi.Document.as_view(), name="openapi"),
    path("api/docs", openapi.docs, name="api-docs"),
    path("api/v1/", include((api_urlpatterns, "api"), namespace="api")),
    path("v1/", include((api_urlpatterns, "api"), namespace="api-short")),
    path(
        "",
        include(
            ([route for route in api_urlpatterns if str(route.pattern).startswith(UNPREFIXED)], "api"),
            namespace="api-unprefixed",
        ),
    ),
    re_path(r"^(?:api|v1|auth|orgs|invites)(?:/|$)", UnknownPath.as_view()),
    *_routes("urlpatterns"),
    path("accounts/", include("allauth.urls")),
    path("admin/", admin.site.urls),
]

handler400 = "apps.core.http.errors.bad_request"
handler403 = "apps.core.http.errors.permission_denied"
handler404 = "apps.core.http.errors.page_not_found"
handler500 = "apps.core.http.errors.server_error"
