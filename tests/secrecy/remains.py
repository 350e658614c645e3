"""What a use of the program leaves behind, and the search in it for what must not be there."""

from __future__ import annotations

import base64
import gzip
import json
import re
import zlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from urllib.parse import quote

_BASE64 = re.compile(rb"[A-Za-z0-9+/_-]{24,}")
_PIECE = 14
"""Characters of a secret that nobody would say by chance."""


@cache
def traces_of(secret: str) -> dict[str, bytes]:
    """What betrays a secret: each half of it, also quoted for a URL, in hexadecimal, base64 and JSON."""
    found: dict[str, bytes] = {}
    for where, piece in (("begin", secret[:_PIECE]), ("end", secret[-_PIECE:])):
        raw = piece.encode()
        found[where] = raw
        found[f"{where}, quoted"] = quote(piece, safe="").encode()
        found[f"{where}, quoted in lower case"] = re.sub(
            rb"%[0-9A-F]{2}", lambda match: match[0].lower(), quote(piece, safe="").encode()
        )
        found[f"{where}, hexadecimal"] = raw.hex().encode()
        found[f"{where}, JSON"] = json.dumps(piece)[1:-1].replace("/", "\\/").encode()
    raw = secret.encode()
    for shift in range(3):  # base64 depends on how many bytes stand before
        whole = base64.b64encode(b"\0" * shift + raw)
        inner = whole[(4 if shift else 0) : -4]
        found[f"base64 at {shift}"] = inner[:20]
        found[f"end of base64 at {shift}"] = inner[-16:]
        found[f"URL base64 at {shift}"] = inner[:20].translate(bytes.maketrans(b"+/", b"-_"))
    return found


def layers(content: bytes) -> Iterator[bytes]:
    """The content, and what is packed into it: gzip, and base64 as recordings write bytes."""
    yield content
    for unpack in (gzip.decompress, zlib.decompress):
        with suppress(OSError, EOFError, zlib.error):
            yield unpack(content)
    unpacked = []
    for word in set(_BASE64.findall(content)):
        text = word.replace(b"-", b"+").replace(b"_", b"/")
        try:
            unpacked.append(base64.b64decode(text + b"=" * (-len(text) % 4)))
        except ValueError:
            continue
    yield b"\n".join(unpacked)


def betrayals(secrets: Mapping[str, str], content: bytes) -> list[str]:
    """Which secrets can be found in the content, each with its form and what stands around it."""
    found = []
    for layer in layers(content):
        for name, secret in secrets.items():
            for form, trace in traces_of(secret).items():
                at = layer.find(trace)
                if at >= 0:
                    around = layer[max(0, at - 80) : at + 60]
                    found.append(f"{name} ({form}) in …{around!r}…")
    return found


def betrayals_in_recording(secrets: Mapping[str, str], content: bytes) -> list[str]:
    """The same for a recording, which keeps what an upstream said: plain, quoted for a URL, or in JSON.

    Its bytes that are no text stand in base64. What an upstream itself encoded otherwise is not looked for.
    """
    texts = [content, *(base64.b64decode(each) for each in re.findall(rb'"base64":"([^"]*)"', content))]
    found = []
    for text in texts:
        for name, secret in secrets.items():
            for form, trace in traces_of(secret).items():
                if "base64" not in form and "hexadecimal" not in form and trace in text:
                    at = text.find(trace)
                    found.append(f"{name} ({form}) in …{text[max(0, at - 80) : at + 60]!r}…")
    return found


def files_below(*folders: Path) -> Iterator[Path]:
    for folder in folders:
        yield from (path for path in sorted(folder.rglob("*")) if path.is_file())
