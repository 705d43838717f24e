"""VAT ids against a registry that answers, refuses, babbles or is away."""

from __future__ import annotations

import json
import threading
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from apps.invoices import services as invoices
from apps.invoices.models import VatCheck
from apps.organizations.models import BillingProfile
from tests import build
from tests.build import NOW


@pytest.fixture
def registry(settings):
    """A registry on this machine; set `answer` to what it says, `asked` is what it was asked."""

    class Registry(BaseHTTPRequestHandler):
        answer: bytes = b""
        asked: list = []

        def do_POST(self):
            length = int(self.headers["Content-Length"])
            type(self).asked.append(json.loads(self.rfile.read(length)))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(type(self).answer)

        def log_message(self, *_arguments):
            pass

    Registry.asked = []
    server = HTTPServer(("127.0.0.1", 0), Registry)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    settings.VIES_URL = f"http://127.0.0.1:{server.server_port}/check"
    yield Registry
    server.shutdown()
    server.server_close()


@pytest.fixture
def lab(db):
    lab = build.organization("lab")
    build.seller()
    build.billing_profile(lab, country="FR", vat_id="FR40303265045")
    return lab


def state(lab):
    return BillingProfile.objects.get(organization=lab).vat_state


@pytest.mark.parametrize(("valid", "expected"), [(True, "confirmed"), (False, "refused")])
def test_the_answer_is_kept_with_its_number(lab, registry, valid, expected):
    registry.answer = json.dumps(
        {"valid": valid, "requestIdentifier": "WAPIAAAAY1", "name": "SA LAB"}
    ).encode()

    invoices.check_vat_id(organization_id=lab.id, now=NOW)

    check = VatCheck.objects.get()
    assert registry.asked == [
        {
            "countryCode": "FR",
            "vatNumber": "40303265045",
            "requesterMemberStateCode": "DE",
            "requesterNumber": "136695976",
        }
    ]
    assert (check.consultation, check.requester, check.details["name"]) == (
        "WAPIAAAAY1",
        "DE136695976",
        "SA LAB",
    )
    assert state(lab) == expected


OUTAGES = [
    b"",
    b"[]",
    b"<html>",
    b"\xff\xfe{}",
    b"[" * 60_000,
    b'{"actionSucceed": false, "errorWrappers": [{"error": "MS_UNAVAILABLE"}]}',
    b'{"valid": false, "userError": "MS_UNAVAILABLE", "name": "---"}',
]


@pytest.mark.parametrize("answer", OUTAGES, ids=range(len(OUTAGES)))
def test_an_outage_is_noted_and_changes_nothing(lab, registry, answer):
    registry.answer = answer

    check = invoices.check_vat_id(organization_id=lab.id, now=NOW)

    assert check.answer == "unavailable"
    assert state(lab) == "unchecked"


def test_an_answer_that_breaks_off_is_an_outage(lab, monkeypatch):
    from http.client import IncompleteRead

    def break_off(*_arguments, **_options):
        raise IncompleteRead(b'{"va', 20)

    monkeypatch.setattr("urllib.request.urlopen", break_off)
    monkeypatch.setattr("django.conf.settings.VIES_URL", "https://registry.example/check")

    assert invoices.check_vat_id(organization_id=lab.id, now=NOW).answer == "unavailable"
    assert state(lab) == "unchecked"


def test_what_postgresql_cannot_keep_is_left_out_of_an_answer(lab, registry):
    registry.answer = b'{"valid": true, "requestIdentifier": "W\\u00001", "name": "SA\\u0000 LAB"}'

    check = invoices.check_vat_id(organization_id=lab.id, now=NOW)

    assert (check.answer, check.consultation, check.details["name"]) == ("valid", "W1", "SA LAB")


def test_a_refused_id_is_asked_about_every_day(lab, registry):
    registry.answer = b'{"valid": false}'
    invoices.check_vat_id(organization_id=lab.id, now=NOW)

    assert invoices.queue_vat_checks(now=NOW + timedelta(hours=23)) == 0
    assert invoices.queue_vat_checks(now=NOW + timedelta(hours=25)) == 1


def test_a_registry_that_is_not_there_is_an_outage(lab, settings):
    settings.VIES_URL = "http://127.0.0.1:9/check"

    assert invoices.check_vat_id(organization_id=lab.id, now=NOW).answer == "unavailable"


def test_a_new_id_is_checked_and_the_sweep_asks_again_later(lab, registry, run_jobs):
    registry.answer = b'{"valid": true}'
    assert "invoices.check_vat_id" in run_jobs()
    assert state(lab) == "confirmed"
    checked = BillingProfile.objects.get(organization=lab).vat_checked_at

    assert invoices.queue_vat_checks(now=checked + timedelta(days=29)) == 0
    assert invoices.queue_vat_checks(now=checked + timedelta(days=31)) == 1

    build.billing_profile(lab, vat_id="FR83404833048")
    assert state(lab) == "unchecked"


def test_an_answer_about_an_id_that_was_replaced_is_kept_and_not_applied(lab, registry, monkeypatch):
    from apps.invoices import vies

    registry.answer = b'{"valid": false}'
    ask = vies.consult

    def consult_slowly(**question):
        build.billing_profile(lab, vat_id="FR83404833048")
        return ask(**question)

    monkeypatch.setattr(vies, "consult", consult_slowly)
    invoices.check_vat_id(organization_id=lab.id, now=NOW)

    assert VatCheck.objects.get().vat_id == "FR40303265045"
    assert state(lab) == "unchecked"


def test_without_a_registry_nothing_is_asked(lab, settings):
    settings.VIES_URL = ""

    assert invoices.check_vat_id(organization_id=lab.id, now=NOW) is None
    assert invoices.queue_vat_checks(now=NOW) == 0
    assert not VatCheck.objects.exists()
