"""Users and their addresses."""

from __future__ import annotations

import pytest
from allauth.account.models import EmailAddress
from django.contrib.auth import authenticate
from django.db import IntegrityError, connection, transaction

from apps.audit.models import AuditEvent
from apps.core.actor import system_actor
from apps.identity import services
from apps.identity.models import User
from tests.build import NOW


def test_an_address_is_one_whatever_its_case(db):
    services.create_user(email="Ada@Example.com", password="correct horse battery", now=NOW)

    with pytest.raises(services.EmailTaken):
        services.create_user(email="ada@example.COM", now=NOW)

    assert User.objects.get().email == "ada@example.com"
    assert EmailAddress.objects.get().verified


def test_the_database_refuses_upper_case_and_a_second_user(db):
    ada = services.create_user(email="ada@example.com", now=NOW)
    bob = services.create_user(email="bob@example.com", now=NOW)
    for address in ("Bob@example.com", "ada@example.com"):
        with pytest.raises(IntegrityError), transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("UPDATE identity_user SET email = %s WHERE id = %s", [address, bob.id])
    assert User.objects.get(pk=ada.pk).email == "ada@example.com"


def test_login_ignores_the_case_of_the_address(rf, db):
    user = services.create_user(email="ada@example.com", password="correct horse battery", now=NOW)

    assert authenticate(rf.post("/"), email="ADA@example.com", password="correct horse battery") == user


def test_credentials_work_until_something_changes(db):
    user = services.create_user(email="ada@example.com", password="correct horse battery", now=NOW)
    assert services.credentials_work("ADA@example.com", "correct horse battery")
    assert not services.credentials_work("ada@example.com", "wrong")
    assert not services.credentials_work("nobody@example.com", "correct horse battery")

    services.change_user(actor=system_actor("tests"), user_id=user.id, changes={"is_active": False})
    assert not services.credentials_work("ada@example.com", "correct horse battery")

    services.set_password(email="ada@example.com", password="another horse battery")
    assert services.credentials_work("ada@example.com", "another horse battery")


def test_making_staff_again_replaces_password_and_authenticator_but_not_the_user(db):
    first, old = services.create_staff(email="ada@example.com", password="correct horse battery", now=NOW)
    second, new = services.create_staff(email="ADA@example.com", password="another horse battery", now=NOW)

    assert first == second
    assert services.credentials_work("ada@example.com", "another horse battery")
    assert services.totp_secret_works("ada@example.com", new)
    assert not services.totp_secret_works("ada@example.com", old)


def test_changes_are_audited_with_what_was_before(db):
    user = services.create_user(email="ada@example.com", now=NOW)

    services.change_user(actor=system_actor("tests"), user_id=user.id, changes={"is_staff": True, "name": ""})

    event = AuditEvent.objects.get(action="user.changed")
    assert event.diff == {"is_staff": [False, True]}
    assert event.target_id == str(user.id)
