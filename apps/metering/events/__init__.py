"""Reading usage events: CloudEvents 1.0, one, a batch or one a line, each checked by itself.

No database here: names are taken as sent. A body that cannot be split into events is refused as a whole; anything wrong
inside one event refuses that event alone.
"""

from apps.metering.events.bodies import CHUNK_EVENTS, UnsupportedContentType, chunks
from apps.metering.events.envelope import Malformed, Received
from apps.metering.events.reading import build

__all__ = ["CHUNK_EVENTS", "Malformed", "Received", "UnsupportedContentType", "build", "chunks"]
