"""What vendors' keys look like: one that stands where a name belongs is not to be repeated. Pure.

Nobody knows such a text to be a secret, for it was never given as one: it was pasted into the wrong place of
a configuration. What is told about that goes into logs, and into an audit log that nobody can delete from.
"""

from __future__ import annotations

import re
from typing import Final

HIDDEN: Final = "***"
_KEY: Final = re.compile(
    r"""
    (?<![A-Za-z0-9])
    (?: sk-(?=[\w-]*[A-Z0-9])[\w-]{16,}       # OpenAI, Anthropic, OpenRouter, and many that are like them
      | (?:gsk|hf|gh[a-z])_[A-Za-z0-9]{16,}   # Groq, Hugging Face, GitHub
      | xai-[\w-]{16,}
      | tgp_v1_[\w-]{16,}                     # Together
      | AIza[\w-]{20,}                        # Google
      | AKIA[A-Z0-9]{16}                      # AWS
      | eyJ[\w-]{8,}\.[\w-]{8,}(?:\.[\w-]*)?  # tokens that carry claims
    )
    # Mistral, Azure and others: nothing but many letters and digits. In a file's path that is no key.
    | (?<![\w/-])(?=[A-Za-z]*[0-9])(?=[0-9]*[A-Za-z])[A-Za-z0-9]{32,}(?![\w/-])
    """,
    re.VERBOSE | re.ASCII,
)


def without_keys(text: str) -> str:
    """The text with `***` for whatever looks like a vendor's key."""
    return _KEY.sub(HIDDEN, text)


__all__ = ["HIDDEN", "without_keys"]
