"""Whatever changes who may do what is mailed once, to whom it concerns: through the doors that people use."""

from __future__ import annotations

import html
import re
from datetime import timedelta

import pytest
from allauth.mfa.models import Authenticator
from django.core import mail
from django.test import Client
from django.utils import timezone

from apps.core.actor import Actor, ActorKind
from apps.core.permissions import IntegrationScope, Role
from apps.credentials import services as credentials
from apps.credentials.models import ApiKey, Integration
from apps.identity import services as identity
from apps.identity.models import User
from apps.organizations import services as organizations
from apps.organizations.models import Membership, Organization
from tests import build
from tests.identity.codes import code_at

pytestmark = pytest.mark.django_db
PASSWORD = "correct horse battery"
OWNER, ADA, BOB = "owner@example.com", "ada@example.com", "bob@example.com"
FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"


@pytest.fixture
def lab():
    found = build.organization("lab", name="Lab & Co")
    build.member(found, Role.OWNER, user=build.user(OWNER, password=PASSWORD))
    build.member(found, Role.ADMIN, user=build.user(ADA, password=PASSWORD))
    build.member(found, Role.DEVELOPER, user=build.user(BOB, password=PASSWORD))
    return found


@pytest.fixture
def mails(run_jobs):
    """Return what was mailed since the last look: recipients and subject of each."""

    def look():
        run_jobs()
        found = sorted((message.to[0], message.subject) for message in mail.outbox)
        mail.outbox.clear()
        return found

    return look


def staff_actor_of(user):
    return Actor(kind=ActorKind.STAFF, id=user.pk, label=user.email)


def as_person(email):
    return build.person_client(Membership.objects.get(user__email=email).user)


def logged_in(email=ADA, client=None, **headers):
    browser = client or Client(headers=headers)
    assert browser.post("/accounts/login/", {"login": email, "password": PASSWORD}).status_code == 302
    return browser


def test_a_key_is_told_to_whoever_made_it(lab, mails):
    owner, ada = as_person(OWNER), as_person(ADA)
    made = ada.post("/orgs/lab/api-keys", {"name": "ci {x}", "scopes": ["usage.read"]}).json()
    assert mails() == [(ADA, "Lab & Co: The API key ci {x} was made.")]

    ada.post(f"/orgs/lab/api-keys/{made['id']}/rotate", {"overlap_seconds": 60})
    assert mails() == [(ADA, "Lab & Co: The API key ci {x} has a new secret.")]

    owner.delete(f"/orgs/lab/api-keys/{made['id']}")
    owner.delete(f"/orgs/lab/api-keys/{made['id']}")
    assert mails() == [(ADA, "Lab & Co: The API key ci {x} was revoked.")]


def test_the_mail_of_a_key_says_who_and_where_but_no_secret(lab, run_jobs):
    made = as_person(ADA).post("/orgs/lab/api-keys", {"name": "ci", "scopes": ["usage.read"]}).json()
    run_jobs()

    (message,) = mail.outbox
    for part in ("Lab & Co", made["masked"], ADA, f"/app/lab/keys/{made['id']}"):
        assert part in message.body
    assert made["secret"] not in message.body + message.alternatives[0][0]


def test_a_leak_is_told_to_the_owners_too_and_only_once(lab, mails):
    ada = build.user_actor(User.objects.get(email=ADA), lab)
    secret = build.api_key(lab, ["usage.read"], name="ci", actor=ada)
    mails()

    for _twice in "12":
        build.client().post("/api/v1/credentials/leaks", {"tokens": [secret]})

    subject = "Lab & Co: The secret of the API key ci was found in public."
    assert mails() == [(ADA, subject), (OWNER, subject)]
    assert ApiKey.objects.get().revoked_at is not None


def test_a_key_without_a_person_is_told_to_the_owners(lab, mails):
    build.api_key(lab, name="old")
    staff, _secret = identity.create_staff(email="staff@example.com", password=PASSWORD, now=timezone.now())
    credentials.revoke(actor=staff_actor_of(staff), credential=ApiKey.objects.get(), now=timezone.now())

    assert mails() == [(OWNER, "Lab & Co: The API key old was revoked.")]


def test_a_leaked_integration_is_told_to_the_staff(mails):
    identity.create_staff(email="staff@example.com", password=PASSWORD, now=timezone.now())
    secret = build.integration([IntegrationScope.USAGE_WRITE], name="provisioner")

    build.client().post("/api/v1/credentials/leaks", {"tokens": [secret]})

    told = [
        ("staff@example.com", "Countinghouse: The secret of the API key provisioner was found in public.")
    ]
    assert mails() == told
    assert Integration.objects.get().revoked_at is not None


def test_keys_that_are_handed_over_are_told_to_the_heir(lab, mails):
    bob, ada = Membership.objects.get(user__email=BOB), Membership.objects.get(user__email=ADA)
    build.api_key(lab, ["usage.read"], name="ci", actor=build.user_actor(bob.user, lab))
    mails()

    as_person(OWNER).delete(f"/orgs/lab/members/{bob.id}", {"keys": str(ada.id)})

    assert mails() == [(ADA, "Lab & Co: The API key ci was handed over to you.")]


def test_keys_that_end_with_their_maker_are_told_once_to_the_maker_and_the_owners(lab, run_jobs):
    for name in ("ci", "laptop"):
        as_person(BOB).post("/orgs/lab/api-keys", {"name": name, "scopes": ["usage.read"]})
    as_person(ADA).post("/orgs/lab/api-keys", {"name": "stays", "scopes": ["usage.read"]})
    run_jobs()
    mail.outbox.clear()

    gone = Membership.objects.get(user__email=BOB)
    assert as_person(OWNER).delete(f"/orgs/lab/members/{gone.pk}").status_code == 204
    run_jobs()

    assert sorted(message.to[0] for message in mail.outbox) == [BOB, OWNER]
    told = mail.outbox[0]
    assert told.subject == f"Lab & Co: 2 API keys ended with {gone.user.get_full_name()}"
    for body in (told.body, told.alternatives[0][0]):
        assert all(key.masked in body for key in ApiKey.objects.filter(created_by__email=BOB))
        assert ApiKey.objects.get(name="stays").masked not in body
        assert OWNER in body


def test_a_member_without_keys_leaves_without_such_a_mail(lab, mails):
    assert as_person(BOB).post("/orgs/lab/leave").status_code == 204

    assert mails() == []


def test_a_role_is_told_to_whose_it_is(lab, mails):
    bob = Membership.objects.get(user__email=BOB)
    owner = as_person(OWNER)

    for _twice in "12":
        owner.patch(f"/orgs/lab/members/{bob.id}", {"role": "billing"})
    owner.patch(f"/orgs/lab/members/{bob.id}", {"suspended": True})

    assert mails() == [(BOB, "Your role in Lab & Co is now Billing.")]


def test_both_hear_of_a_new_owner(lab, mails):
    ada = Membership.objects.get(user__email=ADA)
    for answer in ("decline", "accept"):
        as_person(OWNER).post("/orgs/lab/transfer", {"member": str(ada.id)})
        assert mails() == [(ADA, "You are offered the ownership of Lab & Co")]
        if answer == "decline":
            as_person(ADA).post("/orgs/lab/transfer/decline")
            assert mails() == [(OWNER, f"{ADA} declined the ownership of Lab & Co")]

    assert as_person(ADA).post("/orgs/lab/transfer/accept").status_code == 200

    assert mails() == [
        (ADA, "Your role in Lab & Co is now Owner."),
        (OWNER, "Your role in Lab & Co is now Admin."),
    ]


def test_factors_are_told_over_rest_and_on_the_pages(lab, mails, django_capture_on_commit_callbacks):
    rest = build.client(build.tokens(User.objects.get(email=BOB), PASSWORD).access_token)
    secret = rest.post("/api/v1/mfa/totp").json()["secret"]
    codes = rest.post("/api/v1/mfa/totp/verify", {"code": code_at(secret, timezone.now())}).json()
    assert mails() == [(BOB, "Countinghouse: An authenticator app was added.")]
    rest.delete("/api/v1/mfa/totp", {"code": codes["recovery_codes"][0]})
    assert mails() == [
        (BOB, "Countinghouse: A recovery code was used instead of your second factor."),
        (BOB, "Countinghouse: The authenticator app was removed."),
    ]

    browser = logged_in()
    shown = browser.get("/accounts/2fa/totp/activate/").context["form"].secret
    with django_capture_on_commit_callbacks(execute=True):
        browser.post("/accounts/2fa/totp/activate/", {"code": code_at(shown, timezone.now())})
    assert (ADA, "Countinghouse: An authenticator app was added.") in mails()
    Organization.objects.update(require_mfa=True)
    removing = build.browser(User.objects.get(email=ADA))
    asked = html.unescape(removing.get("/accounts/2fa/totp/deactivate/").text)
    assert "Lab & Co requires a second factor" in asked
    removing.post("/accounts/2fa/totp/deactivate/")
    assert mails() == [(ADA, "Countinghouse: The authenticator app was removed.")]
    assert not Authenticator.objects.exists()


def test_a_new_password_and_a_new_address_are_told(lab, mails):
    browser = logged_in()
    new = "another horse battery"
    browser.post("/accounts/password/change/", {"oldpassword": PASSWORD, "password1": new, "password2": new})
    assert mails() == [(ADA, "Countinghouse: Your password was changed.")]

    browser.post("/accounts/email/", {"email": "countess@example.com", "action_add": ""})
    path = re.search(r"https?://[^/\s]+(/accounts/confirm-email/\S+)", mail.outbox[-1].body)[1]
    mails()
    browser.post(path)
    subject = f"Countinghouse: Your e-mail address was changed from {ADA} to countess@example.com."
    assert mails() == [(ADA, subject), ("countess@example.com", subject)]


def test_a_browser_is_new_once_for_each_person(lab, mails):
    first = logged_in()
    assert mails() == [], "the first login of all is from a new browser anyway"
    first.post("/accounts/logout/")
    logged_in(client=first)
    assert mails() == []

    second = logged_in(user_agent=FIREFOX)
    assert mails() == [(ADA, "Countinghouse: Somebody logged in to your account from a new browser.")]
    second.post("/accounts/logout/")
    logged_in(BOB, client=second)
    logged_in(BOB, client=Client(user_agent="x"))
    assert [to for to, _subject in mails()] == [BOB]

    cookies = {name: morsel for name, morsel in second.cookies.items() if name.startswith("known_")}
    assert len(cookies) == 2
    assert all(morsel["httponly"] and morsel["samesite"] == "Lax" for morsel in cookies.values())
    forged = Client()
    for name in cookies:
        forged.cookies[name] = "yes:1:forged"
    logged_in(client=forged)
    assert [to for to, _subject in mails()] == [ADA]


def test_a_program_is_new_once(lab, mails):
    body = {"email": ADA, "password": PASSWORD}

    def log_in(program):
        answer = build.client(User_Agent=program).post("/auth/login", body)
        assert answer.status_code == 200
        return mails()

    assert log_in("curl/8.5.0") == [], "the first login of all"
    assert log_in("curl/8.5.0") == []
    assert log_in("python-requests/2.32") == [
        (ADA, "Countinghouse: Somebody logged in to your account from a new program.")
    ]
    assert log_in("python-requests/2.32") == []


def test_who_only_fails_to_log_in_is_told_nothing(lab, mails):
    logged_in()
    Client().post("/accounts/login/", {"login": ADA, "password": "wrong"})
    build.client().post("/auth/login", {"email": ADA, "password": "wrong"})

    assert mails() == []


def test_the_link_in_the_mail_of_a_role_opens_the_organization(lab, run_jobs):
    bob = Membership.objects.get(user__email=BOB)
    organizations.change_member(
        actor=build.user_actor(User.objects.get(email=OWNER), lab),
        membership=bob,
        role=Role.VIEWER,
        expires_at=timezone.now() + timedelta(days=1),
        keep_expiry=False,
        now=timezone.now(),
    )
    run_jobs()

    (message,) = mail.outbox
    path = re.search(r"https?://[^/\s]+(/app/\S+)", message.body)[1]
    assert build.browser(bob.user).get(path).status_code == 200
    assert "Sees everything but the audit log; changes nothing." in message.body
    assert "Until now: Developer" in message.body
