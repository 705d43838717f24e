"""Where credentials are asked about."""

from django.urls import path

from apps.credentials import api

api_urlpatterns = [
    path("me", api.Me.as_view(), name="me"),
    path("auth/api-keys/validate", api.Validate.as_view(), name="api-key-validate"),
    path("credentials/leaks", api.LeakReport.as_view(), name="credential-leaks"),
    path("orgs/<slug:slug>/api-keys", api.KeyList.as_view(), name="api-keys"),
    path("orgs/<slug:slug>/api-keys/<uuid:key_id>", api.KeyDetail.as_view(), name="api-key"),
    path("orgs/<slug:slug>/api-keys/<uuid:key_id>/rotate", api.KeyRotate.as_view(), name="api-key-rotate"),
]
