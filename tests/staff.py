"""Staff in the admin, past their second factor."""

from __future__ import annotations

from django.test import Client
from django_otp import DEVICE_ID_SESSION_KEY

from apps.identity import services as identity
from apps.identity.models import MfaDevice, User
from tests.build import NOW


def staff_user(email: str = "staff@example.com") -> User:
    """Make a member of the staff who may do everything."""
    return identity.create_staff(email=email, password="correct horse", now=NOW)[0]


def staff_client(user: User | None = None) -> Client:
    """Return a browser in which a member of the staff is signed in with their second factor."""
    user = user or staff_user()
    client = Client()
    client.force_login(user)
    session = client.session
    session[DEVICE_ID_SESSION_KEY] = MfaDevice.objects.get(user=user).persistent_id
    session.save()
    return client
