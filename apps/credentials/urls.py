"""Where credentials are."""

from django.urls import path

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
urlpatterns = [path(".well-known/jwks.json", tokens.Jwks.as_view(), name="jwks")]
