"""The e-invoice: EN 16931 in the syntax of UN/CEFACT CII, as Factur-X embeds it in the PDF.

Element names and their order are those of the schema; the comments name the business terms.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from lxml import etree

from apps.core import money
from apps.core.countries import vat_prefix
from apps.invoices.models import TaxCategory

NAMESPACES = {
    "rsm": "urn:un:unece:uncefact:data:standard:CrossIndustryInvoice:100",
    "ram": "urn:un:unece:uncefact:data:standard:ReusableAggregateBusinessInformationEntity:100",
    "udt": "urn:un:unece:uncefact:data:standard:UnqualifiedDataType:100",
    "qdt": "urn:un:unece:uncefact:data:standard:QualifiedDataType:100",
}
PROFILE = "urn:cen.eu:en16931:2017"
INVOICE, CREDIT_NOTE = "380", "381"
SEPA_TRANSFER = "58"
HOURS, PIECES = "HUR", "C62"  # UN/ECE Recommendation 20.
DECIMALS_MAX = 2  # EN 16931 knows no finer amounts.
CODES = {TaxCategory.REVERSE_CHARGE: "VATEX-EU-AE", TaxCategory.OUTSIDE: "VATEX-EU-O"}


def why_not(content: Mapping[str, Any]) -> str | None:
    """Return what a document lacks to be an e-invoice, as a word for programs, or None."""
    seller, buyer = content["seller"], content["buyer"]
    categories = {row["category"] for row in content["taxes"]}
    if money.exponent(content["currency"]) > DECIMALS_MAX:
        return "currency"
    if not seller["address"]["country"]:
        return "seller_country"
    if not buyer["address"]["country"]:
        return "buyer_country"
    if categories != {TaxCategory.OUTSIDE} and not (seller["vat_id"] or seller["tax_number"]):
        return "seller_tax_id"
    if TaxCategory.REVERSE_CHARGE in categories and not (seller["vat_id"] and buyer["vat_id"]):
        return "vat_id"
    return None


def xml_of(content: Mapping[str, Any]) -> bytes:
    """Return the e-invoice of a document that `why_not` finds nothing against."""
    root = etree.Element(_name("rsm:CrossIndustryInvoice"), nsmap=NAMESPACES)
    _add(root, "rsm:ExchangedDocumentContext/ram:GuidelineSpecifiedDocumentContextParameter/ram:ID", PROFILE)
    head = _add(root, "rsm:ExchangedDocument")
    _add(head, "ram:ID", content["number"])
    _add(head, "ram:TypeCode", CREDIT_NOTE if content["type"] == "credit_note" else INVOICE)
    _add_day(head, "ram:IssueDateTime", content["issued_on"])
    if content["reason"]:
        _add(head, "ram:IncludedNote/ram:Content", content["reason"])
    trade = _add(root, "rsm:SupplyChainTradeTransaction")
    groups = _groups(content)
    for line in content["lines"]:
        _add_line(trade, line, month=content["period"]["label"], outside=_outside(groups))
    _add_parties(trade, content, outside=_outside(groups) == TaxCategory.OUTSIDE)
    delivery = _add(trade, "ram:ApplicableHeaderTradeDelivery/ram:ActualDeliverySupplyChainEvent")
    _add_day(delivery, "ram:OccurrenceDateTime", content["period"]["last_day"])  # BT-72
    _add_settlement(trade, content, groups)
    etree.indent(root)
    xml: bytes = etree.tostring(root, xml_declaration=True, encoding="UTF-8")
    return xml


def _groups(content: Mapping[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    """Return base, tax and reasons by category and rate; countries are no part of a group here."""
    groups: dict[tuple[str, str], dict[str, Any]] = defaultdict(
        lambda: {"base": Decimal(0), "tax": Decimal(0), "notes": []}
    )
    for row in content["taxes"]:
        group = groups[row["category"], row["percent"]]
        group["base"] += Decimal(row["base"])
        group["tax"] += Decimal(row["tax"])
        if row["note"] and row["note"] not in group["notes"]:
            group["notes"].append(row["note"])
    return dict(groups)


def _outside(groups: Mapping[tuple[str, str], Any]) -> TaxCategory:
    """Return the category of what is outside the scope: EN 16931 allows `O` on its own only, else it is exempt."""
    return TaxCategory.OUTSIDE if {category for category, _percent in groups} == {"O"} else TaxCategory.EXEMPT


def _add_line(trade: Any, line: Mapping[str, Any], *, month: str, outside: TaxCategory) -> None:
    item = _add(trade, "ram:IncludedSupplyChainTradeLineItem")
    _add(item, "ram:AssociatedDocumentLineDocument/ram:LineID", str(line["position"]))
    product = _add(item, "ram:SpecifiedTradeProduct")
    name = " · ".join(part for part in (line["meter"], line["sku"], line["region"]) if part)
    _add(product, "ram:Name", name)
    if line["corrects"]:
        _add(product, "ram:Description", f"{line['kind']} {line['corrects']}, {line['usage_period']}")
    elif line["usage_period"] != month:
        _add(product, "ram:Description", f"{line['kind']}, {line['usage_period']}")
    amount, quantity = Decimal(line["amount"]), Decimal(line["quantity"])
    unit = HOURS if line["unit"] == "h" else PIECES
    price = _add(item, "ram:SpecifiedLineTradeAgreement/ram:NetPriceProductTradePrice")
    if line["unit_price"] is not None:
        _add(price, "ram:ChargeAmount", line["unit_price"])
    else:
        # Tiers have no one price: the whole quantity at the amount that it came to. Prices are never below zero.
        whole = abs(quantity) or Decimal(1)
        quantity = whole.copy_sign(amount) if amount else quantity
        _add(price, "ram:ChargeAmount", f"{abs(amount):f}")
        _add(price, "ram:BasisQuantity", money.plain(whole), unitCode=unit)
    _add(
        item, "ram:SpecifiedLineTradeDelivery/ram:BilledQuantity", money.plain(quantity), unitCode=unit
    )  # BT-129
    settlement = _add(item, "ram:SpecifiedLineTradeSettlement")
    tax = _add(settlement, "ram:ApplicableTradeTax")
    _add(tax, "ram:TypeCode", "VAT")
    category = outside if line["tax_category"] == TaxCategory.OUTSIDE else line["tax_category"]
    _add(tax, "ram:CategoryCode", str(category))
    if category != TaxCategory.OUTSIDE:
        _add(tax, "ram:RateApplicablePercent", line["tax_percent"])
    discount = Decimal(line["discount"])
    if discount:
        allowance = _add(settlement, "ram:SpecifiedTradeAllowanceCharge")
        _add(allowance, "ram:ChargeIndicator/udt:Indicator", "true" if discount < 0 else "false")
        _add(allowance, "ram:ActualAmount", f"{abs(discount):f}")
        _add(allowance, "ram:Reason", "Promotional credit")
    _add(
        settlement,
        "ram:SpecifiedTradeSettlementLineMonetarySummation/ram:LineTotalAmount",
        line["net"],
    )


def _add_parties(trade: Any, content: Mapping[str, Any], *, outside: bool) -> None:
    agreement = _add(trade, "ram:ApplicableHeaderTradeAgreement")
    seller = _add(agreement, "ram:SellerTradeParty")
    facts = content["seller"]
    _add(seller, "ram:ID", facts["code"])
    _add_party(seller, facts, outside=outside)
    if facts["tax_number"] and not outside:
        _add(seller, "ram:SpecifiedTaxRegistration/ram:ID", facts["tax_number"], schemeID="FC")
    _add_party(_add(agreement, "ram:BuyerTradeParty"), content["buyer"], outside=outside)
    if content["buyer"]["po_number"]:
        _add(
            agreement,
            "ram:BuyerOrderReferencedDocument/ram:IssuerAssignedID",
            content["buyer"]["po_number"],
        )


def _add_party(party: Any, facts: Mapping[str, Any], *, outside: bool) -> None:
    _add(party, "ram:Name", facts["name"])
    if facts.get("registration_number"):
        _add(party, "ram:SpecifiedLegalOrganization/ram:ID", facts["registration_number"])
    address = _add(party, "ram:PostalTradeAddress")
    for tag, name in (
        ("ram:PostcodeCode", "postal_code"),
        ("ram:LineOne", "line1"),
        ("ram:LineTwo", "line2"),
        ("ram:CityName", "city"),
        ("ram:CountryID", "country"),
        ("ram:CountrySubDivisionName", "region"),
    ):
        if facts["address"][name]:
            _add(address, tag, facts["address"][name])
    if facts["vat_id"] and not outside:
        # Outside the Union ids are kept without their country, which the standard wants before each (BR-CO-09).
        prefix = vat_prefix(facts["address"]["country"])
        vat_id = prefix + facts["vat_id"].removeprefix(prefix)
        _add(party, "ram:SpecifiedTaxRegistration/ram:ID", vat_id, schemeID="VA")


def _add_settlement(
    trade: Any, content: Mapping[str, Any], groups: Mapping[tuple[str, str], Mapping[str, Any]]
) -> None:
    settlement = _add(trade, "ram:ApplicableHeaderTradeSettlement")
    seller, totals = content["seller"], content["totals"]
    _add(settlement, "ram:PaymentReference", content["number"])
    _add(settlement, "ram:InvoiceCurrencyCode", content["currency"])
    if seller["iban"] and content["type"] == "invoice":
        means = _add(settlement, "ram:SpecifiedTradeSettlementPaymentMeans")
        _add(means, "ram:TypeCode", SEPA_TRANSFER)
        account = _add(means, "ram:PayeePartyCreditorFinancialAccount")
        _add(account, "ram:IBANID", seller["iban"])
        if seller["account_holder"]:
            _add(account, "ram:AccountName", seller["account_holder"])
        if seller["bic"]:
            _add(means, "ram:PayeeSpecifiedCreditorFinancialInstitution/ram:BICID", seller["bic"])
    for (category, percent), group in groups.items():
        _add_group(settlement, category, percent, group, outside=_outside(groups))
    period = _add(settlement, "ram:BillingSpecifiedPeriod")
    _add_day(period, "ram:StartDateTime", content["period"]["first_day"])
    _add_day(period, "ram:EndDateTime", content["period"]["last_day"])
    if content["due_on"] or seller["terms"]:
        terms = _add(settlement, "ram:SpecifiedTradePaymentTerms")
        if seller["terms"]:
            _add(terms, "ram:Description", seller["terms"])
        if content["due_on"]:
            _add_day(terms, "ram:DueDateDateTime", content["due_on"])
    sums = _add(settlement, "ram:SpecifiedTradeSettlementHeaderMonetarySummation")
    _add(sums, "ram:LineTotalAmount", totals["net"])  # BT-106
    _add(sums, "ram:TaxBasisTotalAmount", totals["net"])  # BT-109
    _add(sums, "ram:TaxTotalAmount", totals["tax"], currencyID=content["currency"])  # BT-110
    _add(sums, "ram:GrandTotalAmount", totals["total"])  # BT-112
    is_note = content["type"] == "credit_note"
    if not is_note:
        _add(sums, "ram:TotalPrepaidAmount", totals["prepaid"])  # BT-113
    _add(sums, "ram:DuePayableAmount", totals["total"] if is_note else totals["due"])  # BT-115
    if content["corrects"]:
        _add(settlement, "ram:InvoiceReferencedDocument/ram:IssuerAssignedID", content["corrects"])


def _add_group(
    settlement: Any, category: str, percent: str, group: Mapping[str, Any], *, outside: TaxCategory
) -> None:
    tax = _add(settlement, "ram:ApplicableTradeTax")
    is_outside = category == TaxCategory.OUTSIDE
    _add(tax, "ram:CalculatedAmount", f"{group['tax']:f}")  # BT-117
    _add(tax, "ram:TypeCode", "VAT")
    if group["notes"] or is_outside:
        _add(tax, "ram:ExemptionReason", " ".join(group["notes"]) or "Outside the scope of tax.")  # BT-120
    _add(tax, "ram:BasisAmount", f"{group['base']:f}")  # BT-116
    _add(tax, "ram:CategoryCode", str(outside) if is_outside else category)
    if code := CODES.get(outside if is_outside else TaxCategory(category)):
        _add(tax, "ram:ExemptionReasonCode", code)
    if not (is_outside and outside == TaxCategory.OUTSIDE):
        _add(tax, "ram:RateApplicablePercent", percent)


def _add(parent: Any, path: str, text: str | None = None, **attributes: str) -> Any:
    """Add the elements of a path to a parent and return the last, with its text and attributes."""
    for step in path.split("/"):
        parent = etree.SubElement(parent, _name(step))
    parent.text = text
    parent.attrib.update(attributes)
    return parent


def _add_day(parent: Any, path: str, day: str) -> None:
    _add(parent, f"{path}/udt:DateTimeString", day.replace("-", ""), format="102")


def _name(prefixed: str) -> str:
    prefix, name = prefixed.split(":")
    return f"{{{NAMESPACES[prefix]}}}{name}"
