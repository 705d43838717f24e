"""Confirming a sign-up."""

from __future__ import annotations

from allauth.account.adapter import get_adapter
from allauth.account.internal.flows.login import record_authentication
from allauth.account.utils import perform_login
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import render
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_http_methods

from apps.core.errors import NotFound, ValidationFailed
from apps.core.http.address import client_address
from apps.core.http.views import STEP_UP_LASTS
from apps.identity import services
from apps.identity.forms import SIGN_UP_KEY, SIGN_UP_NEXT_KEY, ConfirmSignUpForm
from apps.limits import services as limits


@sensitive_post_parameters("password")
@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def confirm_sign_up(request: HttpRequest, token: str) -> HttpResponseBase:
    """Show whose account a link confirms, and make it when the button is pressed; looking changes nothing.

    Another browser than the one that asked for the account has to know the password.
    """
    now = timezone.now()
    try:
        wish = services.find_sign_up(token, now=now)
    except NotFound:
        return _link_is_over(request)
    is_own = request.session.get(SIGN_UP_KEY) == str(wish.pk)
    form = None if is_own else ConfirmSignUpForm(request.POST or None)
    if request.method == "POST" and (form is None or form.is_valid()):
        try:
            user = services.confirm_sign_up(
                token=token,
                password=form.cleaned_data["password"] if form else None,
                address=client_address(request),
                now=now,
            )
        except ValidationFailed as error:
            assert form is not None, "only the password can be wrong"
            form.add_error("password", error.fields[0].message)
        except limits.TooManyGuesses as error:
            assert form is not None, "only a password can be guessed"
            form.add_error("password", str(error))
        except (NotFound, services.EmailTaken):
            return _link_is_over(request)
        else:
            # Whoever chose or typed the password minutes ago need not do so again to set up a second factor.
            knew_password = form is not None or now - wish.created_at < STEP_UP_LASTS
            target = request.session.get(SIGN_UP_NEXT_KEY) if is_own else None
            if request.user.is_authenticated:
                get_adapter().logout(request)
            if knew_password:
                record_authentication(request, user, method="password", email=user.email)
            logged_in: HttpResponseBase = perform_login(request, user, redirect_url=target or None)
            return logged_in
    return render(request, "identity/confirm_sign_up.html", {"email": wish.email, "form": form})


def _link_is_over(request: HttpRequest) -> HttpResponse:
    return render(request, "identity/link_over.html", status=404)
