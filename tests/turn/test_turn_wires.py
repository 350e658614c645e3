"""A provider may talk to its models in more than one format; each model is asked in its own."""

from __future__ import annotations

import trio
from support.rig import make_agent, request, respond, store_of
from support.scripted import Script, Scripted, answer

from trio_agent.providers.contract import ModelInfo, Options, ProviderInfo, UpstreamError


class TwoWires(Scripted):
    """Its usual format is Chat Completions."""

    def get_info(self) -> ProviderInfo:
        return ProviderInfo(id=self.name, display_name="Lab", wire="chat")


def two(*scripts: Script) -> TwoWires:
    return TwoWires(*scripts, models=[ModelInfo(id="new", wire="responses"), ModelInfo(id="old")])


BOTH = {"roles": {"coder": ["new", "old"]}}
OPTIONS = Options(extra={"mirostat": 2, "reasoning": {"effort": "low"}}, extra_wire="chat")


async def test_each_model_gets_the_options_of_its_own_wire(autojump_clock: trio.abc.Clock) -> None:
    """A field of the client's wire gets its meaning for one model, and goes to its neighbour as it came."""
    lab = two([UpstreamError("malformed", "no")], answer("ok"))
    agent = make_agent(lab, routing=BOTH)
    sink = await respond(agent, request(model=None, role="coder", options=OPTIONS))
    assert sink.text == "ok"
    told = {call.request.model: call.request.options for call in lab.calls}
    assert (told["new"].reasoning_effort, told["old"].reasoning_effort) == ("low", None)
    assert (told["old"].extra, told["old"].extra_wire) == (OPTIONS.extra, "chat")


async def test_what_one_wire_cannot_carry_is_noted(autojump_clock: trio.abc.Clock) -> None:
    """The turn's record names the field that one of a provider's models does not get, once."""
    lab = two(answer("ok"))
    agent = make_agent(lab, routing=BOTH)
    await respond(agent, request(model=None, role="coder", options=OPTIONS))
    notes = store_of(agent).only.notes
    assert notes == ("the field mirostat was left out: the provider lab speaks another format",)


async def test_a_model_without_a_wire_of_its_own_has_the_provider_s(autojump_clock: trio.abc.Clock) -> None:
    """Nothing is left out where the client's format is the upstream's."""
    lab = two(answer("ok"))
    agent = make_agent(lab)
    await respond(agent, request(model="old", options=OPTIONS))
    assert store_of(agent).only.notes == ()
    assert lab.calls[0].request.options == OPTIONS
