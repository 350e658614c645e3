"""How servers that speak Chat Completions differ from each other."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct


class Quirks(Struct, frozen=True, kw_only=True):
    """One server's ways. The defaults are those that the most servers understand.

    Attributes:
        max_tokens: the request field for the output limit.
        developer_role: whether the role `developer` is known; else it is sent as `system`.
        refusal_field: whether an assistant message may carry `refusal`; else its words go as content.
        tool_choice: whether `tool_choice` has an effect.
        top_k: whether there is `top_k`.
        seed: the request field for the seed.
        reasoning: how effort is asked for: OpenAI's `reasoning_effort`, or OpenRouter's object `reasoning`,
            which can carry a budget in tokens too.
        reasoning_back: the message field in which the server wants its own reasoning back, if any.
        absent: names of `Options` that the server does not know. Labels among them, which change nothing
            in the answer, are left out; the others are refused.
        cache_control: whether parts and tools may carry prompt-caching markers; servers without them cache
            on their own or not at all, and strict ones refuse the request.
        names: whether a message may say who speaks (`name`).
        call_ids: which tool-call ids are taken in a conversation: `any`, at most 40 characters (`short`), or
            exactly nine letters and digits (`nine`). Others get a stable other name, in call and result.
        empty_answers: whether an assistant message may be empty; else one that says nothing is left out.
        hidden_reasoning: whether `completion_tokens` leaves out reasoning, which only the total shows.
        cost: whether `usage.cost` is USD.
    """

    max_tokens: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    developer_role: bool = False
    refusal_field: bool = False
    tool_choice: bool = True
    top_k: bool = False
    seed: Literal["seed", "random_seed"] = "seed"
    reasoning: Literal["reasoning_effort", "reasoning"] = "reasoning_effort"
    reasoning_back: Literal["reasoning_content", "reasoning_details"] | None = None
    absent: frozenset[str] = frozenset()
    cache_control: bool = False
    names: bool = True
    call_ids: Literal["any", "short", "nine"] = "any"
    empty_answers: bool = True
    hidden_reasoning: bool = False
    cost: bool = False


LABELS = frozenset({"metadata", "user", "prompt_cache_key", "safety_identifier"})
"""Options for a vendor's own books and caches: the answer is the same without them."""
