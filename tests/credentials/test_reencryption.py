"""Moving everything that is encrypted to a new key, and dropping the old one."""

from __future__ import annotations

import pytest
from cryptography.fernet import Fernet, InvalidToken
from django.core.management import call_command
from django.utils import timezone

from apps.audit.models import AuditEvent
from apps.core import encryption
from apps.credentials.services.signing import active_key, private_pem
from apps.identity import services as identity
from tests import build
from tests.identity.codes import code_at

pytestmark = pytest.mark.django_db
PASSWORD = "correct horse battery"


def test_after_reencryption_the_old_key_can_go(settings, capsys):
    now = timezone.now()
    ada, secret = identity.create_staff(email="ada@example.com", password=PASSWORD, now=now)
    recovery = identity.renew_recovery_codes(actor=build.person(ada), browser="", now=now)
    bob = build.user("bob@example.com")
    pending = identity.begin_totp(actor=build.person(bob), now=now).secret
    pem = private_pem(active_key(now))
    old = settings.FIELD_ENCRYPTION_KEYS
    new = Fernet.generate_key().decode()
    settings.FIELD_ENCRYPTION_KEYS = [new, *old]

    call_command("reencrypt_secrets")

    # An authenticator, recovery codes, one being set up; the active signing key and the next.
    assert "3 second factors and 2 signing keys" in capsys.readouterr().out
    settings.FIELD_ENCRYPTION_KEYS = [new]
    assert private_pem(active_key(now)) == pem
    identity.take_code(user=ada, code=code_at(secret, now), now=now)
    identity.take_code(user=ada, code=recovery[0], now=now)
    assert identity.verify_totp(actor=build.person(bob), code=code_at(pending, now), browser="", now=now)
    assert AuditEvent.objects.filter(action="secrets.reencrypted").count() == 2

    call_command("reencrypt_secrets")
    assert "0 second factors and 0 signing keys" in capsys.readouterr().out
    assert AuditEvent.objects.filter(action="secrets.reencrypted").count() == 2


def test_a_key_that_is_not_listed_reads_nothing(settings):
    stored = encryption.encrypt("secret")
    assert stored != "secret"
    assert encryption.decrypt(stored) == "secret"
    assert encryption.renewed(stored) == stored

    settings.FIELD_ENCRYPTION_KEYS = [Fernet.generate_key().decode()]

    with pytest.raises(InvalidToken):
        encryption.decrypt(stored)
    with pytest.raises(InvalidToken):
        encryption.renewed(stored)
