"""Which name means which model of which provider. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence

from msgspec import Struct

from trio_agent.errors import AgentError

from .contract import ModelInfo

NAME_LIMIT = 200  # characters of a client's model name that are compared and quoted


class ModelRef(Struct, frozen=True):
    """A model and the provider that serves it. `listed_as` is the name under which it is listed."""

    provider_id: str
    model: ModelInfo
    listed_as: str

    @property
    def full_name(self) -> str:
        return f"{self.provider_id}/{self.model.id}"


class ModelDirectory:
    """The models of all providers, by name.

    `<provider id>/<model id>` always names a model. The bare model id belongs to the first provider,
    in order of declaration, that serves it; where a bare id (which may hold slashes itself) reads like
    the full name of another model, the full name wins, and the model is listed by its own full name.

    Args:
        models: the models of each provider, by provider id, in order of declaration. Provider ids
            hold no slash (`boot_providers` refuses them), so full names cannot collide.
    """

    def __init__(self, models: Mapping[str, Sequence[ModelInfo]]) -> None:
        refs = [
            (f"{provider_id}/{model.id}", provider_id, model)
            for provider_id, ours in models.items()
            for model in ours
        ]
        owner = {
            full_name: full_name for full_name, _, _ in refs
        }  # the full name of the model that a name means
        for full_name, _, model in refs:
            owner.setdefault(model.id, full_name)
        by_full_name = {
            full_name: ModelRef(provider_id, model, model.id if owner[model.id] == full_name else full_name)
            for full_name, provider_id, model in refs
        }
        self._listing = list(by_full_name.values())
        self._by_name = {name: by_full_name[full_name] for name, full_name in owner.items()}

    def resolve(self, name: str) -> ModelRef:
        """The model called `name`. Raises AgentError `unknown_model`, naming up to three close matches."""
        ref = self._by_name.get(name)
        if ref is not None:
            return ref
        near = self.close_matches(name)
        hint = (
            f"Did you mean {' or '.join(repr(match) for match in near)}?"
            if near
            else "GET /v1/models lists the models that are."
        )
        shown = name if len(name) <= NAME_LIMIT else name[:NAME_LIMIT] + "…"
        raise AgentError("unknown_model", f"The model {shown!r} is not served here. {hint}", param="model")

    def close_matches(self, name: str, limit: int = 3) -> list[str]:
        """Names of models that look like `name`, the best first, each model once, as it is listed."""
        if len(name) > NAME_LIMIT:
            return []  # comparing takes time in proportion to the length, and this text is a client's
        folded = {known.lower(): ref.listed_as for known, ref in self._by_name.items()}
        found = difflib.get_close_matches(name.lower(), folded, n=limit * 2)
        return list(dict.fromkeys(folded[known] for known in found))[:limit]

    def listing(self) -> list[ModelRef]:
        """Every model once, in order of declaration; `resolve(ref.listed_as)` is that `ref`."""
        return list(self._listing)

    def __len__(self) -> int:
        return len(self._listing)
