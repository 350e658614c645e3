"""The same tool after a change that somebody made."""

TERMS = {"turn": "one answer to one request", "park": "to wait for the caller's tools"}


async def look_up(term: str) -> dict[str, str]:
    """Look up a term of ours."""
    return {term: TERMS.get(term, "there is no such term")}
