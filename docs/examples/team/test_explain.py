"""The team's client against an agent whose model is a script: no key, no network, no waiting."""

import pytest
from explain import explain

from trio_agent import testing


def ask(provider, word):
    """What the client tells its user."""

    async def main():
        async with testing.open_test_agent(provider) as agent:
            client = testing.client(agent)

            async def post(body):
                answer = await client.ask(body)
                return answer.status, answer.json()

            return await explain(post, word)

    return testing.run(main)


def test_the_user_is_told_what_the_model_says():
    provider = testing.ScriptedProvider([testing.says("One answer ", "to one request.")], name="small")
    assert ask(provider, "turn") == "One answer to one request."
    assert provider.requests[0].messages[-1].text == "What is a turn?"


@pytest.mark.parametrize(
    ("script", "code"),
    [
        (testing.fails("unavailable"), "upstream_error"),
        ([testing.text("One an"), testing.HANG], "upstream_stalled"),
    ],
)
def test_a_model_that_fails_is_no_reason_to_crash(script, code):
    provider = testing.ScriptedProvider([script], name="small")
    assert ask(provider, "turn") == f"Sorry, nobody can tell now ({code})."
