"""Where accounts are, besides allauth's own pages."""

from django.urls import path
from django.views.generic import RedirectView

from apps.identity import api
from apps.identity.views import account, signup

api_urlpatterns = [
    path("mfa", api.Mfa.as_view(), name="mfa"),
    path("mfa/totp", api.Totp.as_view(), name="mfa-totp"),
    path("mfa/totp/verify", api.TotpVerification.as_view(), name="mfa-totp-verify"),
    path("mfa/recovery-codes", api.RecoveryCodes.as_view(), name="mfa-recovery-codes"),
]
_security = RedirectView.as_view(pattern_name="security")
urlpatterns = [
    path("accounts/confirm/<str:token>/", signup.confirm_sign_up, name="sign-up-confirm"),
    # One page instead of allauth's three lists; its forms return to these paths.
    path("accounts/2fa/", account.Enrolled.as_view()),
    path("accounts/2fa/webauthn/", _security),
    path("accounts/sessions/", _security),
    path("accounts/3rdparty/", account.Providers.as_view()),
    path("app/account/profile", account.Profile.as_view(), name="profile"),
    path("app/account/security", account.Security.as_view(), name="security"),
    path("app/account/security/sessions/end-others", account.EndOtherSessions.as_view(), name="end-sessions"),
    path(
        "app/account/security/sessions/<int:session_id>/end", account.EndSession.as_view(), name="end-session"
    ),
    path("app/account/enrol", account.Enrol.as_view(), name="enrol"),
    path("app/account/delete", account.Delete.as_view(), name="delete-account"),
]
