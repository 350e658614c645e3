"""The turn machine as a drawing: its states where this module puts them, its arrows from the table.

Ways of several events bear a letter, and a legend under the drawing names the events. A state or an arrow of
the table that has no place here is an error, so the drawing cannot fall behind.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from html import escape
from string import ascii_lowercase
from typing import Final, NamedTuple

from trio_agent.statemachine import diagram
from trio_agent.statemachine.table import FINAL, NEW, State

Point = tuple[float, float]

WIDTH: Final = 1000
BOX: Final = (148, 44)
LEGEND_TOP: Final = 470
LINE: Final = 22

PLACES: Final[Mapping[str, Point]] = {
    "NEW": (84, 190),
    "PREFLIGHT": (280, 190),
    "ROLE_CHUNK": (490, 190),
    "STREAMING": (700, 190),
    "DONE": (910, 190),
    "HOST_TOOL_WAIT": (490, 330),
    "ERROR": (910, 330),
}


class Way(NamedTuple):
    """A curve between two states: where it leaves and arrives, relative to the boxes' middles.

    `bend` are the two inner points of the curve, absolute; without them it is straight. `at` says how far
    along the label stands, from 0 to 1.
    """

    leaves: Point
    arrives: Point
    bend: tuple[Point, Point] | None = None
    at: float = 0.5


_RIGHT, _LEFT = (74.0, 0.0), (-76.0, 0.0)

WAYS: Final[Mapping[tuple[str, str], Way]] = {
    ("NEW", "PREFLIGHT"): Way(_RIGHT, _LEFT),
    ("NEW", "ERROR"): Way((0, 22), (30, 24), ((84, 460), (940, 460))),
    ("PREFLIGHT", "ROLE_CHUNK"): Way(_RIGHT, _LEFT),
    ("PREFLIGHT", "STREAMING"): Way((10, -22), (-30, -24), ((320, 100), (640, 100)), 0.45),
    ("PREFLIGHT", "DONE"): Way((-30, -22), (30, -24), ((260, 0), (930, 0))),
    ("PREFLIGHT", "HOST_TOOL_WAIT"): Way((20, 22), (-50, -24), at=0.55),
    ("PREFLIGHT", "ERROR"): Way((-40, 22), (-30, 24), ((250, 430), (860, 430)), 0.47),
    ("ROLE_CHUNK", "STREAMING"): Way(_RIGHT, _LEFT),
    ("ROLE_CHUNK", "DONE"): Way((40, -22), (-20, -24), ((560, 70), (860, 70)), 0.55),
    ("ROLE_CHUNK", "ERROR"): Way((30, 22), (-50, -24), ((560, 262), (800, 240)), 0.25),
    ("STREAMING", "DONE"): Way(_RIGHT, _LEFT),
    ("STREAMING", "HOST_TOOL_WAIT"): Way((-40, 22), (30, -24), at=0.6),
    ("STREAMING", "ERROR"): Way((40, 22), (-10, -24), at=0.35),
    ("HOST_TOOL_WAIT", "STREAMING"): Way((74, -10), (10, 24), ((620, 310), (700, 280)), 0.42),
    ("HOST_TOOL_WAIT", "ERROR"): Way((74, 6), (-76, 6)),
    ("HOST_TOOL_WAIT", "PREFLIGHT"): Way((-74, 0), (-10, 24), ((340, 330), (270, 290)), 0.5),
}

_STYLE: Final = """
    svg { --page: #fff; --ink: #1d2733; --soft: #5b6b7c; --box: #eef3f8; --line: #6b7f93; --mark: #1c5d99; }
    @media (prefers-color-scheme: dark) {
      svg { --page: #131416; --ink: #e6ebf0; --soft: #a5b2bf; --box: #232b34; --line: #8494a5;
            --mark: #8ec5ff; }
    }
    .page { fill: var(--page); }
    text { font: 14px system-ui, sans-serif; fill: var(--ink); }
    .state { font-weight: 600; text-anchor: middle; }
    .box { fill: var(--box); stroke: var(--line); stroke-width: 1.5; }
    .way { fill: none; stroke: var(--line); stroke-width: 1.5; marker-end: url(#head); }
    .head { fill: var(--line); }
    .label { text-anchor: middle; font-size: 12px; fill: var(--mark); stroke: var(--page); stroke-width: 5px;
             stroke-linejoin: round; paint-order: stroke; }
    .letter { font-size: 15px; font-weight: 600; }
    .legend { font-size: 13px; fill: var(--soft); }
    .key { font-weight: 600; fill: var(--mark); }
"""


def as_svg() -> str:
    """The drawing.

    Raises:
        ValueError: the table has a state or an arrow that has no place here, or lacks one that has.
    """
    edges = {
        (source.name, target.name): tuple(events) for (source, target), events in diagram.edges().items()
    }
    _check({state.name for state in State}, set(PLACES), "states")
    _check(set(edges), set(WAYS), "arrows")
    letters = _letters(edges)
    height = LEGEND_TOP + LINE * len(letters) + 14
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img"',
        '     aria-labelledby="t d">',
        '  <title id="t">The states of a turn, and the ways between them</title>',
        f'  <desc id="d">{escape(_in_words(edges))}</desc>',
        f"  <style>{_STYLE}  </style>",
        '  <marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7"',
        '          orient="auto">',
        '    <path class="head" d="M0 0 8 4 0 8z"/>',
        "  </marker>",
        f'  <rect class="page" width="{WIDTH}" height="{height}" rx="8"/>',
        *(_curve(pair) for pair in edges),
        *(_box(state) for state in State),
        *(_label(pair, events, letters) for pair, events in edges.items()),
        *_legend(letters),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _check(table: set[str] | set[tuple[str, str]], drawn: set[str] | set[tuple[str, str]], what: str) -> None:
    if table != drawn:
        missing, extra = sorted(map(str, table - drawn)), sorted(map(str, drawn - table))  # type: ignore[operator]
        raise ValueError(f"the drawing has no place for the {what} {missing}, or has too many: {extra}")


def _letters(edges: Mapping[tuple[str, str], tuple[str, ...]]) -> dict[tuple[str, ...], str]:
    """A letter for each set of several events, in the order of the table."""
    several = dict.fromkeys(events for events in edges.values() if len(events) > 1)
    return dict(zip(several, ascii_lowercase, strict=False))


def _in_words(edges: Mapping[tuple[str, str], tuple[str, ...]]) -> str:
    ways = (f"{source} to {target} on {', '.join(events)}" for (source, target), events in edges.items())
    return f"A turn begins in {NEW.name}. " + "; ".join(ways) + "."


def _points(pair: tuple[str, str]) -> tuple[Point, Point, Point, Point]:
    way = WAYS[pair]
    (x0, y0), (x3, y3) = PLACES[pair[0]], PLACES[pair[1]]
    first, last = (x0 + way.leaves[0], y0 + way.leaves[1]), (x3 + way.arrives[0], y3 + way.arrives[1])
    second, third = way.bend or (first, last)
    return first, second, third, last


def _curve(pair: tuple[str, str]) -> str:
    first, *others = ("{:g} {:g}".format(*point) for point in _points(pair))
    return f'  <path class="way" d="M{first} C{", ".join(others)}"/>'


def _along(pair: tuple[str, str]) -> Point:
    """The point of a curve where its label stands."""
    t = WAYS[pair].at
    weights = ((1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t * t * (1 - t), t**3)
    points = _points(pair)
    x, y = (sum(w * p[axis] for w, p in zip(weights, points, strict=True)) for axis in (0, 1))
    return round(x, 1), round(y, 1)


def _box(state: State) -> str:
    x, y = PLACES[state.name]
    width, height = BOX
    rects = [(x - width / 2, y - height / 2, width, height)]
    if state in FINAL:
        rects.append((x - width / 2 + 4, y - height / 2 + 4, width - 8, height - 8))
    shapes = [
        f'  <rect class="box" x="{left:g}" y="{top:g}" width="{w:g}" height="{h:g}" rx="8"/>'
        for left, top, w, h in rects
    ]
    return "\n".join([*shapes, f'  <text class="state" x="{x:g}" y="{y + 5:g}">{state.name}</text>'])


def _label(pair: tuple[str, str], events: tuple[str, ...], letters: Mapping[tuple[str, ...], str]) -> str:
    x, y = _along(pair)
    if events in letters:
        return _text("label letter", x, y + 5, letters[events])
    if WAYS[pair].bend is not None:
        return _text("label", x, y + 4, events[0])
    above, below = _halves(events[0])  # the gap between two boxes is too narrow for a whole name
    return "\n".join(
        [_text("label", x, y - 6, above), *([_text("label", x, y + 16, below)] if below else [])]
    )


def _halves(name: str) -> tuple[str, str]:
    """A name in two pieces of about one length, each a word or several."""
    cuts = [place.start() for place in re.finditer("(?<=[a-z])[A-Z]", name)] or [len(name)]
    cut = min(cuts, key=lambda each: abs(len(name) - 2 * each))
    return name[:cut], name[cut:]


def _text(kind: str, x: float, y: float, text: str) -> str:
    return f'  <text class="{kind}" x="{x:g}" y="{y:g}">{text}</text>'


def _legend(letters: Mapping[tuple[str, ...], str]) -> Iterator[str]:
    for number, (events, letter) in enumerate(letters.items()):
        y = LEGEND_TOP + LINE * number
        yield f'  <text class="legend" x="30" y="{y}"><tspan class="key">{letter}</tspan></text>'
        yield f'  <text class="legend" x="52" y="{y}">{", ".join(events)}</text>'
