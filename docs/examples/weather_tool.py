"""A tool that runs on the server: a callable with type hints. The docstring is what the model reads of it."""

from typing import Literal

DEGREES = {"Oslo": 4.0, "Lagos": 31.0}  # a real tool would ask a weather service


async def get_weather(
    city: str = "Oslo", unit: Literal["celsius", "fahrenheit"] = "celsius"
) -> dict[str, object]:
    """The temperature in a city now."""
    if city not in DEGREES:
        raise LookupError(f"no weather station in {city}; there are {', '.join(DEGREES)}")
    degrees = DEGREES[city]
    return {"city": city, "unit": unit, "degrees": degrees if unit == "celsius" else degrees * 9 / 5 + 32}
