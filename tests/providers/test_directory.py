"""Which name means which model."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_agent.errors import AgentError
from trio_agent.providers.contract import ModelInfo
from trio_agent.providers.directory import ModelDirectory


def directory(**models: list[str]) -> ModelDirectory:
    return ModelDirectory(
        {provider: [ModelInfo(id=each) for each in ids] for provider, ids in models.items()}
    )


@pytest.mark.parametrize(
    ("name", "full_name", "listed_as"),
    [
        ("gpt", "openai/gpt", "gpt"),
        ("openai/gpt", "openai/gpt", "gpt"),
        ("azure/gpt", "azure/gpt", "azure/gpt"),
        ("only-azure", "azure/only-azure", "only-azure"),
        ("meta/llama", "router/meta/llama", "meta/llama"),
        ("router/meta/llama", "router/meta/llama", "meta/llama"),
        ("router/openai/gpt", "router/openai/gpt", "router/openai/gpt"),
        ("openai/mini", "router/openai/mini", "openai/mini"),
    ],
)
def test_full_names_always_resolve_and_bare_ids_belong_to_the_first_owner(
    name: str, full_name: str, listed_as: str
) -> None:
    """A full name beats a bare id that reads like it; else the first declared provider owns the bare id."""
    models = directory(
        openai=["gpt"],
        azure=["gpt", "only-azure"],
        router=["meta/llama", "openai/gpt", "openai/mini"],
    )
    ref = models.resolve(name)
    assert (ref.full_name, ref.listed_as) == (full_name, listed_as)


def test_an_unknown_model_names_close_matches_once_each() -> None:
    """The error is the client's, names the parameter, and offers at most three models as they are listed."""
    models = directory(openai=["gpt-5", "gpt-5-mini", "gpt-5-nano", "gpt-5-max"], azure=["gpt-5"])
    with pytest.raises(AgentError) as caught:
        models.resolve("GPT-5-mimi")
    assert (caught.value.code, caught.value.status, caught.value.param) == ("unknown_model", 400, "model")
    assert "'GPT-5-mimi' is not served here. Did you mean 'gpt-5-mini'" in caught.value.message
    assert len(models.close_matches("gpt-5-mimi")) == 3
    assert len(set(models.close_matches("gpt-5"))) == len(models.close_matches("gpt-5"))


@pytest.mark.parametrize("name", ["", "nothing like it at all", "x" * 1_000_000])
def test_an_unknown_model_without_matches_says_where_to_look(name: str) -> None:
    """A name like no other points to the listing; a huge one is neither compared nor quoted whole."""
    with pytest.raises(AgentError, match="GET /v1/models") as caught:
        directory(openai=["gpt"]).resolve(name)
    assert len(caught.value.message) < 500


ids = st.text("ab/", min_size=1, max_size=4)
provider_ids = st.text("ab", min_size=1, max_size=2)


@given(st.dictionaries(provider_ids, st.lists(ids, unique=True, max_size=4), max_size=4))
def test_every_model_is_listed_once_under_a_name_that_means_it(served: dict[str, list[str]]) -> None:
    """Whatever the ids look like: the listing has each model once, and both its names resolve to it."""
    models = directory(**served)
    listing = models.listing()
    assert [ref.full_name for ref in listing] == [
        f"{p}/{each}" for p, ours in served.items() for each in ours
    ]
    assert len({ref.listed_as for ref in listing}) == len(listing)
    for ref in listing:
        assert models.resolve(ref.listed_as) == ref
        assert models.resolve(ref.full_name) == ref
