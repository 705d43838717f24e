"""Where accounts are, besides allauth's own pages."""

from django.urls import path

from apps.identity import api, views

api_urlpatterns = [
    path("mfa", api.Mfa.as_view(), name="mfa"),
    path("mfa/totp", api.Totp.as_view(), name="mfa-totp"),
    path("mfa/totp/verify", api.TotpVerification.as_view(), name="mfa-totp-verify"),
    path("mfa/recovery-codes", api.RecoveryCodes.as_view(), name="mfa-recovery-codes"),
]
urlpatterns = [
    path("accounts/confirm/<str:token>/", views.confirm_sign_up, name="sign-up-confirm"),
]
