"""Where credentials are."""

from django.urls import path
from django.utils.translation import gettext_lazy as _

from apps.core.http.navigation import Section
from apps.core.permissions import Permission
from apps.credentials import views
from apps.credentials.api import keys, own, signup, tokens

api_urlpatterns = [
    path("me", own.Me.as_view(), name="me"),
    path("auth/api-keys/validate", own.Validate.as_view(), name="api-key-validate"),
    path("auth/signup", signup.SignUp.as_view(), name="signup"),
    path("auth/login", tokens.Login.as_view(), name="login"),
    path("auth/token", tokens.Login.as_view(), name="token"),
    path("auth/refresh", tokens.Refresh.as_view(), name="refresh"),
    path("auth/logout", tokens.Logout.as_view(), name="logout"),
    path("auth/step-up", tokens.StepUp.as_view(), name="step-up"),
    path("credentials/leaks", keys.LeakReport.as_view(), name="credential-leaks"),
    path("orgs/<slug:slug>/api-keys", keys.KeyList.as_view(), name="api-keys"),
    path("orgs/<slug:slug>/api-keys/<uuid:key_id>", keys.KeyDetail.as_view(), name="api-key"),
    path("orgs/<slug:slug>/api-keys/<uuid:key_id>/rotate", keys.KeyRotate.as_view(), name="api-key-rotate"),
]

navigation = [
    Section(
        key="keys",
        label=_("API keys"),
        route="keys",
        permission=Permission.API_KEYS_READ,
        position=210,
        letter="k",
    ),
]

urlpatterns = [
    path(".well-known/jwks.json", tokens.Jwks.as_view(), name="jwks"),
    path("app/account/security/programs/<uuid:login_id>/end", views.EndProgram.as_view(), name="end-program"),
    path("app/<slug:slug>/keys", views.Keys.as_view(), name="keys"),
    path("app/<slug:slug>/keys/new", views.NewKey.as_view(), name="new-key"),
    path("app/<slug:slug>/keys/<uuid:key_id>", views.Key.as_view(), name="key"),
    path("app/<slug:slug>/keys/<uuid:key_id>/rotate", views.RotateKey.as_view(), name="rotate-key"),
    path("app/<slug:slug>/keys/<uuid:key_id>/revoke", views.RevokeKey.as_view(), name="revoke-key"),
]
