"""Content parts in every spelling of the three formats, towards our own parts.

Sources: OpenAI's `ChatCompletionContentPart…` and `ResponseInput…` types, Anthropic's `…BlockParam` types.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from trio_agent.errors import AgentError
from trio_agent.statemachine.conversation import Image, Refusal, Text

TEXT_TYPES = frozenset({"text", "input_text", "output_text"})
IMAGE_TYPES = frozenset({"image_url", "input_image", "image"})
_DATA_URL = re.compile(r"data:image/[a-z0-9.+-]+;base64,", re.IGNORECASE)
_SHOWN_URL_LENGTH = 80


def text_part(part: Mapping[str, Any], place: str) -> Text:
    """A text part in any spelling. Raises AgentError `invalid_content_part`."""
    text = part.get("text")
    if not isinstance(text, str):
        raise _invalid(place, "a text part needs `text`, a string")
    return Text(text, _cache_control(part, place))


def image_part(part: Mapping[str, Any], place: str) -> Image:
    """An image part in any spelling. Raises AgentError `invalid_content_part` or `invalid_image_url`."""
    kind = part["type"]
    source = part.get("source") if kind == "image" else part.get("image_url")
    detail = part.get("detail")
    url: object
    if kind == "image":
        url = _source_url(source, place)
    elif isinstance(source, Mapping):
        url, detail = source.get("url"), source.get("detail", detail)
    else:
        url = source
    if kind == "input_image" and url is None and part.get("file_id") is not None:
        raise AgentError(
            "unsupported_content_type",
            f"{place}: images by file id are not supported; send the image as a URL or data URL.",
            param=place,
        )
    if not isinstance(url, str):
        raise _invalid(place, f"an `{kind}` part needs a URL")
    if detail is not None and not isinstance(detail, str):
        raise _invalid(place, "`detail` must be a string")
    _check_url(url, place)
    return Image(url, detail, _cache_control(part, place))


def refusal_part(part: Mapping[str, Any], place: str) -> Refusal:
    refusal = part.get("refusal")
    if not isinstance(refusal, str):
        raise _invalid(place, "a refusal part needs `refusal`, a string")
    return Refusal(refusal)


def content_part(
    part: Mapping[str, Any], place: str, *, images: bool, refusals: bool = False
) -> Text | Image | Refusal:
    """One part of a message's content.

    Args:
        place: where it stands in the request, such as `messages[3].content[1]`.
        images: whether a message of this role may hold images.
        refusals: whether it may hold a refusal, which only a model utters.

    Raises:
        AgentError: `unsupported_content_type`, `invalid_content_part` or `invalid_image_url`.
    """
    kind = part.get("type")
    if not isinstance(kind, str):
        raise _invalid(place, "a content part needs `type`, a string")
    if kind in TEXT_TYPES:
        return text_part(part, place)
    if kind in IMAGE_TYPES:
        if not images:
            raise _invalid(place, "a message of this role cannot hold images")
        return image_part(part, place)
    if kind == "refusal":
        if not refusals:
            raise _invalid(place, "only an assistant message can hold a refusal")
        return refusal_part(part, place)
    raise AgentError(
        "unsupported_content_type",
        f"{place}: content of type {kind[:40]!r} is not supported. Text and images are.",
        param=place,
    )


def _source_url(source: object, place: str) -> str:
    """Anthropic's image source as a URL."""
    if not isinstance(source, Mapping):
        raise _invalid(place, "an `image` part needs `source`")
    match source.get("type"):
        case "url":
            url = source.get("url")
            if isinstance(url, str):
                return url
        case "base64":
            media_type, data = source.get("media_type"), source.get("data")
            if isinstance(media_type, str) and isinstance(data, str):
                return f"data:{media_type};base64,{data}"
        case _:
            pass
    raise _invalid(
        place, "`source` must be of type `url` with `url`, or `base64` with `media_type` and `data`"
    )


def _check_url(url: str, place: str) -> None:
    """Accept http(s) URLs with a host, and base64 data URLs of images."""
    head = _DATA_URL.match(url)
    if head is not None:
        try:
            base64.b64decode(url[head.end() :], validate=True)
        except (binascii.Error, ValueError):
            raise _bad_url(url, place, "its base64 is broken") from None
        return
    if url[:5].lower() == "data:":
        raise _bad_url(url, place, "a data URL must be `data:image/…;base64,…`")
    try:
        split = urlsplit(url)
        fine = split.scheme in ("http", "https") and bool(split.hostname)
    except ValueError:
        fine = False
    if not fine:
        raise _bad_url(url, place, "it must be an http(s) URL or a `data:image/…` URL")


def _bad_url(url: str, place: str, why: str) -> AgentError:
    shown = url if len(url) <= _SHOWN_URL_LENGTH else url[:_SHOWN_URL_LENGTH] + "…"
    return AgentError("invalid_image_url", f"{place}: {shown!r} is no usable image URL: {why}.", param=place)


def _invalid(place: str, why: str) -> AgentError:
    return AgentError("invalid_content_part", f"{place}: {why}.", param=place)


def _cache_control(part: Mapping[str, Any], place: str) -> dict[str, Any] | None:
    marker = part.get("cache_control")
    if marker is None or isinstance(marker, dict):
        return marker
    raise _invalid(place, "`cache_control` must be an object")
