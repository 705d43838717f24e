"""The development mailbox: mails land in a folder, where the pages under /dev/mail show them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email import message_from_bytes, policy
from email.message import EmailMessage as ParsedMessage
from pathlib import Path
from uuid import UUID

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.mail import EmailMessage
from django.core.mail.backends.base import BaseEmailBackend

from apps.core.ids import uuid7

KEPT_MAX = 500
_SUFFIX = ".eml"


class Mailbox(BaseEmailBackend):
    """Keeps the last 500 mails in COUNTINGHOUSE_VAR/mail instead of sending them."""

    def send_messages(self, email_messages: Sequence[EmailMessage]) -> int:
        """Write each mail to a file that appears complete or not at all."""
        folder = _folder()
        # Readable by nobody else: mails hold links that open doors.
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for message in email_messages:
            path = folder / f"{uuid7()}{_SUFFIX}"
            unfinished = path.with_suffix(".part")
            unfinished.write_bytes(message.message().as_bytes())
            unfinished.rename(path)
        for old in _paths()[KEPT_MAX:]:
            old.unlink(missing_ok=True)
        return len(email_messages)


class NoServer(BaseEmailBackend):
    """Refuses every mail where the operator named no server: those queued wait, visibly, instead of being lost."""

    def send_messages(self, email_messages: Sequence[EmailMessage]) -> int:  # noqa: ARG002  Django's signature.
        """Raise ImproperlyConfigured."""
        raise ImproperlyConfigured("EMAIL_URL is not set, so no mail can be sent")


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """One mail of the development mailbox."""

    id: UUID
    at: datetime
    sender: str
    recipient: str
    subject: str
    text: str
    html: str
    raw: str


def newest(count: int = KEPT_MAX) -> Iterator[Received]:
    """Return the kept mails, newest first."""
    for path in _paths()[:count]:
        if (found := find(UUID(path.stem))) is not None:
            yield found


def find(mail_id: UUID) -> Received | None:
    """Return the mail of that id, if it is still kept."""
    try:
        raw = (_folder() / f"{mail_id}{_SUFFIX}").read_bytes()
    except FileNotFoundError:
        return None
    parsed = message_from_bytes(raw, policy=policy.default)
    return Received(
        id=mail_id,
        at=datetime.fromtimestamp((mail_id.int >> 80) / 1000, tz=UTC),  # UUIDv7: milliseconds lead.
        sender=str(parsed["From"]),
        recipient=str(parsed["To"]),
        subject=str(parsed["Subject"]).strip(),  # A long one begins on the next line.
        text=_body(parsed, "plain"),
        html=_body(parsed, "html"),
        raw=raw.decode("utf-8", "replace"),
    )


def _folder() -> Path:
    return Path(settings.VAR) / "mail"


def _paths() -> list[Path]:
    return sorted(_folder().glob(f"*{_SUFFIX}"), reverse=True)


def _body(parsed: ParsedMessage, kind: str) -> str:
    part = parsed.get_body((kind,))
    return str(part.get_content()) if part is not None else ""
