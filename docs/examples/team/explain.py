"""The team's client: explains a word to its user, with the help of a model."""


async def explain(post, word):
    """The explanation, or an apology. `post` takes a request and returns status and JSON of the answer."""
    question = {"role": "user", "content": f"What is a {word}?"}
    status, answer = await post({"model": "small", "messages": [question]})
    if status != 200:
        return f"Sorry, nobody can tell now ({answer['error']['code']})."
    return answer["choices"][0]["message"]["content"]
