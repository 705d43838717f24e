"""Sessions at rest: what a page keeps of somebody between two requests is encrypted in its row."""

from __future__ import annotations

import json
from typing import Any

from apps.core import encryption


class EncryptedSerializer:
    """Django's session serializer; libraries keep secrets in sessions, such as that of an authenticator being set up.

    A session of a key that is no longer listed is empty, so its person logs in again.
    """

    def dumps(self, obj: Any) -> bytes:
        """Return what a session holds as it is stored."""
        return encryption.encrypt(json.dumps(obj, separators=(",", ":"))).encode("ascii")

    def loads(self, data: bytes) -> Any:
        """Return what was stored."""
        return json.loads(encryption.decrypt(data.decode("ascii")))
