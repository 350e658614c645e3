"""The team's tool: what a word means in this house."""

TERMS = {"turn": "one answer to one request", "park": "to wait for the caller's tools"}


async def look_up(term: str) -> str:
    """Look up a term of ours."""
    return TERMS.get(term, "there is no such term")
