"""Where credentials are asked about."""

from django.urls import path

from apps.credentials import api

api_urlpatterns = [
    path("me", api.Me.as_view(), name="me"),
    path("auth/api-keys/validate", api.Validate.as_view(), name="api-key-validate"),
]
