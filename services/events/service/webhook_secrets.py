"""Secrets of webhooks: ours are derived anew whenever they are needed, a sender's is kept sealed.

Each is sealed under a key of its own, so what is copied to another webhook cannot be read there.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography.fernet import Fernet

from services.events.webhook_signature import KEY_PREFIX

if TYPE_CHECKING:
    from collections.abc import Callable

SECRET_BYTES = 32


@dataclass(frozen=True, slots=True)
class WebhookSecrets:
    """The secrets of one webhook."""

    derive_key: Callable[[str], bytes]
    workspace: str
    webhook: str

    def ours(self, secret_id: str) -> str:
        """The secret that we gave out; every scheme can sign with it."""
        secret = self._derived("webhook-secret", secret_id)
        return KEY_PREFIX + base64.b64encode(secret[:SECRET_BYTES]).decode()

    def seal(self, secret_id: str, secret: str) -> bytes:
        """A secret as it may be kept."""
        return self._seal(secret_id).encrypt(secret.encode())

    def opened(self, secret_id: str, sealed: bytes) -> str:
        """A secret as its holder signs with it; `sealed` is empty when it is ours."""
        if not sealed:
            return self.ours(secret_id)
        return self._seal(secret_id).decrypt(sealed).decode()

    def fingerprint(self, secret: str) -> str:
        """What tells a secret from others, to who repeats a request, and tells nobody the secret.

        A hash without a key would not do: a secret that a person chose could be guessed by it. It
        is the same for all webhooks, as one whose id is made up has another in each attempt.
        """
        return self.derive_key(f"webhook-fingerprint/{self.workspace}/{secret}").hex()

    def _seal(self, secret_id: str) -> Fernet:
        return Fernet(base64.urlsafe_b64encode(self._derived("webhook-seal", secret_id)))

    def _derived(self, purpose: str, last: str) -> bytes:
        return self.derive_key(f"{purpose}/{self.workspace}/{self.webhook}/{last}")
