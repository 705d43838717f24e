"""Documents as files: the e-invoice by its schema and rules, the PDF that holds it, and what both say."""

from __future__ import annotations

import hashlib
import io
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import facturx
import pytest
from lxml import etree
from pypdf import PdfReader
from saxonche import PySaxonProcessor

from apps.billing.models import Pot
from apps.invoices.documents import einvoice
from apps.invoices.documents.content import content_of
from apps.invoices.documents.pdf import pdf_of
from apps.invoices.models import Invoice
from apps.organizations import services as organizations
from tests import build
from tests.billing.runs import HOUR, run, stop
from tests.invoices.conftest import APRIL

JUNE = datetime(2026, 6, 1, tzinfo=UTC)
MAY = datetime(2026, 5, 3, tzinfo=UTC)
RULES = Path(facturx.__file__).parent / "xsd_and_schematron" / "facturx-en16931"
SVRL = "{http://purl.oclc.org/dsdl/svrl}"
TIERS = [
    {"up_to": "2", "unit_price": "3.33", "flat_fee": "1"},
    {"up_to": None, "unit_price": "2.5", "flat_fee": "0"},
]


@cache
def schema():
    return etree.XMLSchema(etree.parse(RULES / "Factur-X_EN16931.xsd"))


@cache
def schematron():
    processor = PySaxonProcessor(license=False)
    (sheet,) = RULES.glob("*.xslt")
    return processor, processor.new_xslt30_processor().compile_stylesheet(stylesheet_file=str(sheet))


def broken_rules(xml: bytes) -> list[str]:
    """Return what an e-invoice breaks: the schema's errors, then the ids and texts of the rules of EN 16931."""
    document = etree.fromstring(xml)
    found = [str(error.message) for error in schema().error_log] if not schema().validate(document) else []
    processor, sheet = schematron()
    node = processor.parse_xml(xml_text=xml.decode())
    report = etree.fromstring(sheet.transform_to_string(xdm_node=node).encode())
    assert report.findall(f"{SVRL}fired-rule"), "the rules ran"
    return found + [
        f"{failed.get('id')}: {failed.findtext(f'{SVRL}text')}"
        for failed in report.iter(f"{SVRL}failed-assert")
    ]


PACKAGES = {
    "meter": "egress_gb", "model": "package", "package_size": "100", "package_price": "1.1", "free_units": "10",
}  # fmt: skip


@pytest.fixture
def lab(db):
    build.seller(terms="Without deduction.")
    lab = build.organization("lab", currency="EUR", now=APRIL, timezone="Europe/Berlin")
    build.billing_profile(
        lab,
        legal_name="Laboratoire de Calcul SA",
        line1="1 rue de la Paix",
        postal_code="75002",
        city="Paris",
        country="FR",
        po_number="PO-2026-7",
    )
    build.price_book(
        {"unit_price": "2.4949"},
        {"sku": "tiered", "model": "graduated", "tiers": TIERS},
        {"sku": "free", "unit_price": "0"},
        PACKAGES,
        currency="EUR",
    )
    return lab


def use(lab, *, start=APRIL):
    project = build.project(lab, f"vision-{start:%m}")
    build.usage(lab, start, start + 5 * HOUR, project=project.slug, gpus="8")
    build.usage(lab, start, start + 3 * HOUR, sku="tiered")
    build.usage(lab, start, start + HOUR, sku="free")


def content(lab, label="2026-04", now=build.NOW):
    return content_of(Invoice.objects.get(pk=build.closed(lab, label, now=now).invoice.pk))


def domestic(lab):
    build.billing_profile(lab, country="DE")
    use(lab)
    return content(lab)


def consumer_abroad(lab):
    use(lab)
    return content(lab)


def reverse_charge(lab):
    build.billing_profile(lab, vat_id="FR40303265045")
    use(lab)
    return content(lab)


def outside_the_union(lab):
    build.billing_profile(lab, country="US", region="Texas")
    use(lab)
    return content(lab)


def exempt(lab):
    from apps.invoices import services as invoices

    invoices.add_tax_exemption(
        actor=build.actor(), organization=lab, country="FR", certificate="7/2026", reason="embassy",
        valid_from=APRIL.date(), valid_until=None, now=APRIL,
    )  # fmt: skip
    use(lab)
    return content(lab)


def zero_rated(lab):
    from decimal import Decimal

    from apps.invoices import services as invoices

    invoices.add_tax_rate(
        actor=build.actor(), country="FR", percent=Decimal(0), effective_from=APRIL.date(), source="law", now=APRIL
    )  # fmt: skip
    use(lab)
    return content(lab)


def prepaid_with_a_discount(lab):
    build.credit(lab, "20", pot=Pot.PROMO, now=APRIL)
    build.credit(lab, "50", now=APRIL)
    use(lab)
    return content(lab)


def two_rates_and_outside(lab):
    use(lab)
    content(lab)
    build.billing_profile(lab, country="US", vat_id="12-3456789")
    build.usage(lab, APRIL, APRIL + HOUR)
    use(lab, start=MAY)
    return content(lab, "2026-05", JUNE)


def credit_note_of_a_period(lab):
    run(lab, "a", APRIL, APRIL + 9 * HOUR, sku="h100")
    content(lab)
    stop(lab, "a", APRIL + HOUR)
    build.usage(lab, MAY, MAY + HOUR, sku="tiered")
    return content(lab, "2026-05", JUNE)


CASES = [
    domestic,
    consumer_abroad,
    reverse_charge,
    outside_the_union,
    exempt,
    zero_rated,
    prepaid_with_a_discount,
    two_rates_and_outside,
    credit_note_of_a_period,
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_the_e_invoice_of_every_tax_case_is_valid(lab, case):
    said = case(lab)

    assert einvoice.why_not(said) is None
    assert broken_rules(einvoice.xml_of(said)) == []


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("<ram:GrandTotalAmount>107.95<", "<ram:GrandTotalAmount>107.96<"),
        ("<ram:LineTotalAmount>89.96<", "<ram:LineTotalAmount>89.95<"),
        ("<ram:DuePayableAmount>57.95<", "<ram:DuePayableAmount>57.94<"),
    ],
)
def test_a_deliberately_wrong_total_is_found(lab, right, wrong):
    xml = einvoice.xml_of(prepaid_with_a_discount(lab)).decode()
    assert xml.count(right) == 1

    found = broken_rules(xml.replace(right, wrong).encode())

    assert any("BR-CO-" in rule for rule in found), found


def test_an_unknown_element_breaks_the_schema(lab):
    xml = einvoice.xml_of(domestic(lab)).replace(b"<ram:Name>", b"<ram:Nom/><ram:Name>", 1)

    assert any("Nom" in rule for rule in broken_rules(xml))


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda said: said["seller"]["address"].update(country=""), "seller_country"),
        (lambda said: said["buyer"]["address"].update(country=""), "buyer_country"),
        (lambda said: said["seller"].update(vat_id="", tax_number=""), "seller_tax_id"),
        (lambda said: said.update(currency="KWD"), "currency"),
    ],
)
def test_what_cannot_be_an_e_invoice_says_why(lab, change, word):
    said = domestic(lab)
    change(said)

    assert einvoice.why_not(said) == word


def printed(pdf: bytes) -> str:
    return "\n".join(page.extract_text() for page in PdfReader(io.BytesIO(pdf)).pages)


def test_the_pdf_is_archivable_holds_the_e_invoice_and_says_the_totals(lab):
    said = prepaid_with_a_discount(lab)
    xml = einvoice.xml_of(said)

    pdf = pdf_of(said, xml)

    reader = PdfReader(io.BytesIO(pdf))
    assert reader.attachments == {"factur-x.xml": [xml]}
    metadata = reader.xmp_metadata.stream.get_data().decode()
    for mark in ("<pdfaid:part>3", "<pdfaid:conformance>B", "EN 16931", "factur-x.xml"):
        assert mark in metadata
    assert reader.trailer["/Root"]["/OutputIntents"][0]["/S"] == "/GTS_PDFA1"
    text = printed(pdf)
    for words in (
        "Invoice", "INV-2026-000001", "Kontor GPU GmbH", "Laboratoire de Calcul SA", "1 – 30 April 2026",
        "Europe/Berlin", "57.95 EUR", "due 29 May 2026", "h100 · eu", "40.00 h", "2.00 h × 3.33 + 1.00 = 7.66",
        "−19.96",        "107.95", "−50.00", "DE89 3704 0044 0532 0130 00", "vision-04", "Page 1 of 1", "PO-2026-7",
    ):  # fmt: skip
        assert words in text, words


def test_the_same_document_gives_the_same_bytes_of_text_and_xml(lab):
    said = reverse_charge(lab)
    again = content_of(Invoice.objects.get(number=said["number"]))

    assert again == said
    assert einvoice.xml_of(again) == einvoice.xml_of(said)
    assert pdf_of(again, None) == pdf_of(said, None)
    assert "Reverse charge: VAT is due from the recipient" in " ".join(printed(pdf_of(said, None)).split())


def test_later_changes_of_the_parties_change_no_final_document(lab):
    said = consumer_abroad(lab)
    build.billing_profile(lab, legal_name="Renamed", country="DE")
    build.seller(legal_name="Sold to Others GmbH", iban="")
    organizations.change_organization(actor=build.actor(lab), organization=lab, slug="renamed", now=build.NOW)

    assert content_of(Invoice.objects.get(number=said["number"])) == said


def test_long_tables_go_over_pages_with_their_head(db):
    build.seller(country="JP", vat_id="", timezone="Asia/Tokyo")
    lab = build.organization("lab", currency="JPY", now=APRIL, timezone="Asia/Tokyo")
    build.billing_profile(lab, legal_name="東京大学情報基盤センター", city="東京", country="JP")
    build.price_book({"unit_price": "1234.5678"}, currency="JPY")
    for number in range(60):
        build.usage(lab, APRIL, APRIL + HOUR, sku=f"node-{number:02d}")

    said = content(lab)
    pages = [page.extract_text() for page in PdfReader(io.BytesIO(pdf_of(said, None))).pages]

    assert len(pages) > 1
    for number, text in enumerate(pages, start=1):
        assert f"INV-2026-000001 · Page {number} of {len(pages)}" in text
    assert ["Unit price" in text for text in pages[:2]] == [True, True]
    assert "東京大学情報基盤センター" in pages[0]
    # 60 lines of 1,235 are 74,100; owed are 60 × 1,234.5678 = 74,074.068.
    assert "74,074 JPY" in pages[0]
    assert "Credit used, and rounding" in "".join(pages[1:])

    lines = said["lines"]
    for count in range(24, 32):  # Around the end of the first page.
        said["lines"] = lines[:count]
        pages = [page.extract_text() for page in PdfReader(io.BytesIO(pdf_of(said, None))).pages]
        (total,) = [text for text in pages if "Amount due" in text]
        assert "node-" in total, f"the sums of {count} lines stand alone"


@pytest.mark.parametrize(
    "name",
    [
        "شركة الحوسبة",
        "חברת מחשוב",
        "Вычислительный центр",
        "Κέντρο Υπολογισμού",
        "कंप्यूटर केंद्र",
        "คอมพิวเตอร์",
        "컴퓨터 센터",
    ],
)
def test_names_in_every_script_have_their_letters(lab, name):
    build.billing_profile(lab, legal_name=name)
    use(lab)

    text = printed(pdf_of(content(lab), None))

    # A letter without a glyph is extracted as nothing or as a replacement.
    assert "\ufffd" not in text
    assert any(letter in text for letter in name if letter.isalpha()), text


def places(pdf: bytes) -> list[tuple[float, str]]:
    """Return each piece of printed text of the first page with where it begins, from the left, in points."""
    found: list[tuple[float, str]] = []
    page = PdfReader(io.BytesIO(pdf)).pages[0]
    page.extract_text(visitor_text=lambda text, cm, tm, *_font: found.append((cm[0] * tm[4] + cm[4], text)))
    return found


def test_words_without_a_break_stay_in_their_column_and_others_whole(lab):
    name, order = "Donaudampfschifffahrts" * 5, "4500012345" * 6
    build.billing_profile(lab, legal_name=name, city=name[:90], po_number=order)
    build.usage(lab, APRIL, APRIL + HOUR, sku="x" * 100)
    build.usage(lab, APRIL, APRIL + HOUR, sku="gpu-h100-sxm_8gpu-128vcpu-1600gb")

    pdf = pdf_of(content(lab), None)

    text = printed(pdf).replace("\n", "").replace("\u200b", "")
    for words in (name, order, "x" * 100, "gpu-h100-sxm_8gpu-128vcpu-1600gb"):
        assert words in text
    # No printed piece is longer than the widest column, so nothing runs over its neighbour.
    widest = max(len(piece.strip()) for _left, piece in places(pdf) if set(piece.strip()) <= {"x"})
    assert 0 < widest < 70


def test_usage_by_project_of_a_correction_is_what_came_late(lab):
    use(lab)
    content(lab)
    late = build.project(lab, "late").slug
    build.usage(lab, APRIL, APRIL + 9 * HOUR, project=late)
    build.usage(lab, MAY, MAY + HOUR, project=late)

    said = content(lab, "2026-05", JUNE)

    assert [line["net"] for line in said["lines"]] == ["2.49", "22.45"]
    assert said["projects"] == [{"project": "late", "amount": "24.94"}]


def test_usage_of_an_earlier_month_says_so(lab):
    use(lab)
    content(lab)
    build.usage(lab, APRIL, APRIL + HOUR, sku="late")
    use(lab, start=MAY)

    said = content(lab, "2026-05", JUNE)

    xml = einvoice.xml_of(said)
    assert printed(pdf_of(said, None)).count("usage of 2026-04") == 1
    assert xml.count(b"<ram:Description>usage, 2026-04</ram:Description>") == 1
    assert broken_rules(xml) == []


def test_usage_that_moved_between_projects_is_taken_from_one_and_given_to_the_other(lab):
    first, second = build.project(lab, "first").slug, build.project(lab, "second").slug
    run(lab, "a", APRIL, APRIL + 4 * HOUR, sku="h100", project=first)
    content(lab)
    run(lab, "b", APRIL, APRIL + 2 * HOUR, sku="h100", project=second)
    stop(lab, "a", APRIL + HOUR)

    said = content(lab, "2026-05", JUNE)

    # 4 hours were billed to one; now it has 1 and the other 2: 7.48 − 9.98 = 2.49 − 9.98 + 4.99.
    assert [(line["quantity"], line["net"]) for line in said["lines"]] == [("1.000000", "2.50")]
    assert said["projects"] == [
        {"project": "first", "amount": "7.49"},
        {"project": "second", "amount": "-4.99"},
    ]


def test_emoji_are_printed_and_letters_that_no_font_has_are_question_marks(lab):
    use(lab)
    said = content(lab)

    def named(name):
        return printed(pdf_of(said | {"buyer": said["buyer"] | {"name": name}}, None))

    assert "Smile 😀 👩‍🚀 ? Lab" in named("Smile 😀 👩‍🚀 𓀀 Lab")
    # Past a dozen such letters everything that is not western is one of them.
    hieroglyphs = "".join(chr(0x13000 + place) for place in range(60))
    assert named(f"Smile 😀 Lab {hieroglyphs}").count("?") == 61


# --- kept and served


@pytest.fixture
def client(lab):
    return build.client(build.api_key(lab))


def test_a_job_makes_the_files_once_and_they_are_served_with_their_hash(lab, client, run_jobs):
    use(lab)
    invoice = build.closed(lab, "2026-04").invoice
    assert "invoices.make_files" in run_jobs()
    kept = dict(invoice.files.values_list("format", "sha256"))

    answer = client.get(f"/api/v1/billing/invoices/{invoice.id}/pdf")
    xml = client.get(f"/api/v1/billing/invoices/{invoice.id}/xml")

    assert (answer.status_code, answer["Content-Type"]) == (200, "application/pdf")
    assert answer["Content-Disposition"] == 'attachment; filename="INV-2026-000001.pdf"'
    assert answer["ETag"] == f'"{hashlib.sha256(answer.content).hexdigest()}"' == f'"{kept["pdf"]}"'
    assert broken_rules(xml.content) == []
    assert sorted(kept) == ["pdf", "xml"]


def test_files_that_no_job_made_are_made_when_asked_for_or_swept(lab, client):
    from datetime import timedelta

    from apps.invoices import services as invoices

    use(lab)
    invoice = build.closed(lab, "2026-04").invoice
    assert invoices.queue_files(now=build.NOW) == 0
    assert invoices.queue_files(now=build.NOW + timedelta(minutes=6)) == 1

    assert client.get(f"/api/v1/billing/invoices/{invoice.id}/pdf").status_code == 200
    assert invoices.queue_files(now=build.NOW + timedelta(minutes=6)) == 0


def test_csv_and_json_say_the_same_lines(lab, client):
    use(lab)
    invoice = build.closed(lab, "2026-04").invoice

    said = client.get(f"/api/v1/billing/invoices/{invoice.id}/json").json()
    rows = client.get(f"/api/v1/billing/invoices/{invoice.id}/csv").content.decode().splitlines()

    assert [line["net"] for line in said["lines"]] == ["0.00", "99.80", "10.16"]
    assert rows[0].startswith("number,currency,position,kind,usage_period")
    assert (
        rows[2]
        == "INV-2026-000001,EUR,2,usage,2026-04,,gpu_hours,h100,eu,40.000000,h,2.4949,99.80,0.00,99.80,S,20,19.96"
    )
    assert said["totals"]["total"] == "131.95"


def test_drafts_have_no_files_and_other_tenants_no_document(lab, client):
    use(lab)
    draft = build.closed(lab, "2026-04", finalize=False).invoice
    stranger = build.client(build.api_key(build.organization("other")))

    refused = client.get(f"/api/v1/billing/invoices/{draft.id}/pdf")

    assert (refused.status_code, refused.json()["code"]) == (409, "invoice_not_final")
    assert stranger.get(f"/api/v1/billing/invoices/{draft.id}/pdf").status_code == 404


def test_a_document_without_a_seller_is_printed_and_no_e_invoice(db):
    lab = build.organization("lab", now=APRIL)
    build.price_book({"unit_price": "1"})
    build.usage(lab, APRIL, APRIL + HOUR)
    invoice = build.closed(lab, "2026-04").invoice
    client = build.client(build.api_key(lab))

    refused = client.get(f"/api/v1/billing/invoices/{invoice.id}/xml")

    assert (refused.status_code, refused.json()["code"]) == (409, "no_e_invoice")
    assert "Countinghouse" in printed(client.get(f"/api/v1/billing/invoices/{invoice.id}/pdf").content)


def test_credit_notes_are_listed_apart_from_invoices(lab, client):
    credit_note_of_a_period(lab)

    (note,) = client.get("/api/v1/billing/credit-notes").json()["data"]
    (invoice,) = client.get("/api/v1/billing/invoices").json()["data"]

    assert (note["number"], note["kind"], note["total"]) == ("CN-2026-000001", "adjustment_note", "18.76")
    assert client.get(f"/api/v1/billing/credit-notes/{note['id']}").json() == note
    assert client.get(f"/api/v1/billing/invoices/{note['id']}").status_code == 404
    assert client.get(f"/api/v1/billing/credit-notes/{invoice['id']}").status_code == 404
    assert client.get(f"/api/v1/billing/credit-notes/{note['id']}/pdf").content.startswith(b"%PDF-")
    lines = client.get(f"/api/v1/billing/credit-notes/{note['id']}/lines").json()["data"]
    assert [line["amount"] for line in lines] == ["4.33", "-19.96"]


def test_packages_are_told_with_their_number_size_and_price(lab):
    event = build.usage_event(lab, APRIL, APRIL + HOUR, sku="net", meter="egress_gb", quantity="777.5")
    for name in ("started_at", "ended_at", "gpus"):
        del event["data"][name]
    build.events(event | {"time": (APRIL + HOUR).isoformat()})

    text = printed(pdf_of(content(lab), None))

    # 777.5 less 10 free ones need 8 packages: 8 × 1.10 = 8.80.
    assert "10.00 × 0.00 = 0.00" in text
    assert "767.50 in packages of 100: 8 × 1.10 = 8.80" in text
