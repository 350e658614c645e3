"""How a secret may be written: whatever it was encoded with, and wherever it stood, it is recognised."""

from __future__ import annotations

import base64
import json
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_agent.config.secret_forms import forms_of

SECRETS = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=8, max_size=40)


def masked(text: str, secret: str) -> str:
    for form in forms_of(secret):
        text = text.replace(form, "***")
    return text


@given(SECRETS, st.binary(max_size=6), st.binary(max_size=6))
def test_in_base64_it_is_found_wherever_it_stands(secret: str, before: bytes, behind: bytes) -> None:
    """Of a longer text that was encoded, nothing is left that all of the secret could be read from."""
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        text = encode(before + secret.encode() + behind).decode()
        assert "***" in masked(text, secret)
        assert len(masked(text, secret)) <= len(text) - 8 * len(secret) // 6 + 3 + 2


@given(SECRETS)
def test_quoted_and_hexadecimal_forms_are_found(secret: str) -> None:
    """As URLs, JSON and dumps have it, in either case of the digits."""
    quoted = quote(secret, safe="")
    for text in (quoted, secret.encode().hex(), secret.encode().hex().upper()):
        assert secret.encode().hex()[:8] not in masked(text, secret)
        assert "***" in masked(f"a {text} b", secret)


@pytest.mark.parametrize("secret", ["abc", "k-1", "päss", "a/b+c=="])
def test_forms_of_short_secrets_do_not_blank_plain_words(secret: str) -> None:
    """What is too short to be told from chance stands for itself alone."""
    assert all(form == secret or len(form) >= 8 for form in forms_of(secret))
    assert json.dumps(forms_of(secret))
