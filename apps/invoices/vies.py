"""VIES, the European Commission's registry of VAT ids, over its REST interface; called by jobs only."""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any

from django.conf import settings

from apps.invoices.models import VatAnswer

TIMEOUT_SECONDS = 20
ANSWER_BYTES_MAX = 64 * 1024
NO_ERRORS = (None, "", "VALID", "INVALID")


@dataclass(frozen=True, slots=True, kw_only=True)
class Consultation:
    """What VIES said. number: its proof of the consultation, given only to a requester with a VAT id of its own."""

    answer: VatAnswer
    number: str
    details: dict[str, Any]


def consult(*, vat_id: str, requester: str) -> Consultation:
    """Ask VIES about a VAT id in compact form; an outage is an answer too and raises nothing.

    requester: the seller's VAT id, or empty.
    """
    body = {"countryCode": vat_id[:2], "vatNumber": vat_id[2:]}
    if requester:
        body |= {"requesterMemberStateCode": requester[:2], "requesterNumber": requester[2:]}
    request = urllib.request.Request(  # noqa: S310  The operator's setting, never a user's.
        settings.VIES_URL,
        data=json.dumps(body).encode(),
        headers={"Content-Type": "application/json", "Accept": "application/json"},
        method="POST",
    )
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as response:  # noqa: S310  As above.
            # PostgreSQL keeps no NUL.
            text = response.read(ANSWER_BYTES_MAX).decode().replace("\\u0000", "").replace("\0", "")
            details = json.loads(text)
    except (OSError, http.client.HTTPException, urllib.error.URLError, ValueError, RecursionError) as error:
        return Consultation(answer=VatAnswer.UNAVAILABLE, number="", details={"error": str(error)})
    valid = details.get("valid") if isinstance(details, dict) else None
    # A member state that does not answer can come as "not valid" with the reason beside it.
    if not isinstance(valid, bool) or details.get("userError") not in NO_ERRORS:
        return Consultation(answer=VatAnswer.UNAVAILABLE, number="", details={"body": details})
    return Consultation(
        answer=VatAnswer.VALID if valid else VatAnswer.INVALID,
        number=str(details.get("requestIdentifier") or "")[:64],
        details=details,
    )
