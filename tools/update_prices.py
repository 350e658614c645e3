"""Rewrite trio_agent/accounting/prices.json from the installed package genai-prices.

    python tools/update_prices.py 2026-11-20

The date is the day whose prices are taken, and is written into the file. Needs an environment with
`genai-prices` and `msgspec`. Only numbers and model names are taken over: main chat models that the
vendors still offer. What cannot be said exactly in our form is left out and named on standard error.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import re
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from trio_agent.accounting.genai import VENDORS, price_from  # noqa: E402  (needs the path above)
from trio_agent.statemachine.money import Price  # noqa: E402

TARGET = ROOT / "trio_agent" / "accounting" / "prices.json"
SHIPPED = ("anthropic", "gemini", "groq", "mistral", "openai", "xai")
# What is no chat model, and what has not been one for a long time.
LEFT_OUT = re.compile(
    r"embed|tts|whisper|transcri|audio|realtime|image|imagine|video|veo|imagen|moderation|guard|ocr|speech"
    r"|voxtral|live|robotics|computer-use|lyria|search|davinci|babbage|curie|\bada\b|instruct|omni"
    r"|^gpt-3|^gpt-4(-|$)|^claude-(2|3|instant|v\d)|^gemini-(1|pro|flash|2\.0)|^grok-[12]|^gemma|^learnlm|^palm"
    r"|^ft:|deep-research|nano-banana|orpheus|canopy|play|:|voice"
    r"|^llama-?[23]-|^llama2|^llama3|^llama-3\.[12]|^mixtral|mixtral|specdec|^mistral-7b"
)
ELSEWHERE = {"gemini": re.compile("^claude|^anthropic/"), "openai": re.compile("^gpt-oss")}
"""What a vendor sells over another API than the one that our module of this name calls."""


def names_of(match: Any) -> Iterator[str]:
    """The names that a match clause spells out; patterns are passed over."""
    for name in (getattr(match, "equals", None), getattr(match, "starts_with", None)):
        if name is not None:
            yield name.lower()
    for clause in getattr(match, "or_", None) or ():
        yield from names_of(clause)


def entry(names: list[str], price: Price) -> dict[str, Any]:
    return {"names": names, **figures(price)}


def figures(price: Price) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in price.__struct_fields__:
        value = getattr(price, name)
        if isinstance(value, Decimal):
            found[name] = format(value.scaleb(6).normalize(), "f")
        elif isinstance(value, Price):
            found[name] = figures(value)
        elif value is not None:
            found[name] = value
    return found


def models_of(module: str, vendor: Any, at: datetime) -> list[dict[str, Any]]:
    found = []
    for model in vendor.models:
        if model.deprecated or LEFT_OUT.search(model.id):
            continue
        if module in ELSEWHERE and ELSEWHERE[module].search(model.id):
            continue
        price = price_from(model.get_prices(at))
        if price is None:
            sys.stderr.write(f"left out: {vendor.id}/{model.id}\n")
            continue
        # A name may be claimed by an earlier model of the list, whose it then is.
        own = [
            name
            for name in dict.fromkeys([model.id, *names_of(model.match)])
            if vendor.find_model(name) is model
        ]
        own = [name for name in own if not name.endswith(("-", ".", "@")) and not LEFT_OUT.search(name)]
        if own:
            found.append(entry(own, price))
    return found


def main(date: str) -> None:
    providers = importlib.import_module("genai_prices.data").providers
    at = datetime.fromisoformat(date).replace(tzinfo=UTC)
    distribution = importlib.metadata.distribution("genai-prices")
    licence = next(file for file in distribution.files or () if file.name == "LICENSE")
    table = {
        "source": {
            "package": "genai-prices",
            "version": distribution.version,
            "date": date,
            "unit": "USD per million tokens",
            "licence": licence.read_text().strip(),
        },
        "models": {
            module: models_of(
                module, next(vendor for vendor in providers if vendor.id == VENDORS[module]), at
            )
            for module in SHIPPED
        },
    }
    text = msgspec.json.format(msgspec.json.encode(table), indent=1).decode()
    # One line a model: the file is read by people when prices change.
    text = re.sub(
        r"\{\n {4}\"names\".*?\n {3}\}", lambda found: " ".join(found[0].split()), text, flags=re.DOTALL
    )
    TARGET.write_text(text + "\n")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
