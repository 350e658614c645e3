"""From a seed to a scenario: what is likely, what is nasty, and moments that fall on deadlines.

Half of the scenarios are calm in all respects but a few, so that a fault is met in company as well as alone.
Every time comes from a small set: round ones, and the server's own limits, exactly and a thousandth of a
second to either side.
"""

from __future__ import annotations

import random

from msgspec.structs import replace
from simulation.scenario import (
    PROVIDERS,
    Act,
    Ask,
    Client,
    DiskFault,
    DiskKind,
    Ending,
    Face,
    Keeps,
    Leave,
    Outage,
    Reload,
    Reply,
    Scenario,
    Settings,
    Step,
    ToolManner,
)

HAIR = 0.001
ENDINGS: tuple[Ending, ...] = ("length", "cut", "short", "garbage", "torn", "error", "stall")
MANNERS: tuple[ToolManner, ...] = (
    *["returns"] * 6, "raises", "raises", "hangs", "hangs", "exits", "returns nonsense", "fails when stopped",
)  # fmt: skip
FACES: tuple[Face, ...] = ("chat", "chat", "messages", "responses", "responses")
KEEPS: tuple[Keeps, ...] = ("", "answers", "chain", "chain")
STATUSES = (400, 401, 408, 413, 422, 429, 429, 500, 502, 503, 529)


def generate(seed: int) -> Scenario:
    """The scenario of a seed. It does not change unless this module does."""
    return _Author(seed).scenario()


class _Author:
    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._dice = random.Random(f"scenario {seed}")
        self._other_dice = random.Random(f"faces {seed}")
        self._settings = self._make_settings()
        self._asks = 0

    def _chance(self, probability: float) -> bool:
        return self._dice.random() < probability

    def _make_settings(self) -> Settings:
        dice = self._dice
        return Settings(
            preflight=dice.choice([0.0, 2.0, 2.0, 5.0]),
            keepalive=dice.choice([1.0, 3.0, 3.0]),
            turn=dice.choice([6.0, 20.0, 40.0]),
            ttl=dice.choice([10.0, 30.0]),
            grace=dice.choice([0.0, 1.0, 1.0, 4.0]),
            retries=dice.choice([0, 1, 2, 2]),
            model_calls=dice.choice([2, 6, 6]),
            cost=dice.choice([None, None, None, None, "0.015"]),
            concurrent=dice.choice([2, 1000, 1000, 1000]),
            drains=dice.choice([(), (), ("beta",), ("alpha", "gamma")]),
            errors=dice.choice(["event", "event", "event", "content", "both"]),
            write=dice.choice([6.0, 6.0, 2.0, 30.0, 60.0]),
            connections=dice.choice([100, 100, 100, 100, 2]),
            queued=(queueing := random.Random(f"queue {self._seed}")).choice([0, 1, 3, 100]),
            queue=queueing.choice([0.5, 2.0, 5.0]),
            writes_at_once=random.Random(f"writes {self._seed}").choice([None, 1]),
        )

    def _passes(self) -> int:
        """Within a moment: by how many passes through the scheduler something happens later."""
        return self._dice.choice([self._dice.randint(1, 6), self._dice.randint(0, 40)])

    # --- moments --------------------------------------------------------------------------------------

    def _moment(self, *limits: float) -> float:
        """A duration: none, a round one, or one that falls on a limit or a hair beside it."""
        kind = self._dice.random()
        if kind < 0.3 or not limits:
            return self._dice.choice([0.0, 0.0, 0.1, 0.5, 1.0])
        if kind < 0.5:
            return self._dice.choice([1.5, 2.5, 4.0, 7.0])
        return max(0.0, self._dice.choice(limits) + self._dice.choice([-HAIR, 0.0, 0.0, HAIR]))

    def _silence(self) -> float:
        s = self._settings
        return self._moment(s.preflight, s.keepalive, 2 * s.keepalive, s.idle, s.first_byte, s.turn)

    # --- the whole ------------------------------------------------------------------------------------

    def scenario(self) -> Scenario:
        clients = tuple(self._client() for _ in range(self._dice.randint(2, 6)))
        if self._chance(0.3):
            clients += (self._program(),)
        faults = self._dice.random()
        scenario = Scenario(
            seed=self._seed,
            clients=clients,
            settings=self._settings,
            outages=self._outages() if self._chance(0.2) else (),
            disk=self._disk() if faults < 0.25 else (),
            acts=self._acts() if 0.15 < faults < 0.4 else (),
            restores=self._dice.choice([0.0, 0.0, 0.1]),
            reloads=self._reloads(),
        )
        scenario = self._in_company(scenario) if self._chance(0.4) else scenario
        scenario = self._with_lost_writes(scenario) if self._chance(0.12) else scenario
        return replace(scenario, clients=tuple(map(self._with_face, scenario.clients)))

    def _with_face(self, client: Client) -> Client:
        if client.embedded:
            return client
        face = self._other_dice.choice(FACES)
        keeps = self._other_dice.choice(KEEPS) if face == "responses" else ""
        asks = tuple(map(self._with_key, client.asks))
        return replace(client, asks=asks, face=face, keeps=keeps)

    def _with_key(self, ask: Ask) -> Ask:
        """Sometimes the same request several times, with an Idempotency-Key."""
        dice = self._other_dice
        if ask.tools or ask.spoiled or dice.random() > 0.15:
            return ask
        apart = dice.choice([0.0, 0.0, 0.1, 1.0, 3.0])
        return replace(ask, key=True, copies=dice.choice([2, 3]), apart=apart, tries=max(2, ask.tries))

    def _in_company(self, scenario: Scenario) -> Scenario:
        """With one more client, whose fault is met by another one in a moment that chance seldom finds."""
        s, dice = self._settings, self._dice
        model = dice.choice(s.drains or PROVIDERS)
        drains = replace(s, drains=tuple(sorted({*s.drains, model})))
        self._asks += 1
        ask = Ask(f"a{self._asks}", model=f"{model}/one", stream=self._chance(0.8))
        slow = Reply((Step("text", 2), Step("wait", seconds=s.idle - HAIR), Step("text", 2)))
        at = scenario.clients[0].start
        match dice.choice(["before the connection", "while it is drained", "does not read", "parks"]):
            case "before the connection":
                outage = Outage(model, at, at + 1.0, silent=True)
                leave = Leave(after=dice.choice([0.5, 1.0]), passes=dice.randint(0, 20))
                scenario = replace(scenario, outages=(*scenario.outages, outage), settings=drains)
                ask = replace(ask, leave=leave)
            case "while it is drained":
                act = Act(dice.choice(["kill", "kill", "shutdown"]), at + 1.0, passes=dice.randint(0, 20))
                leave = Leave(pieces=1) if self._chance(0.5) else None
                scenario = replace(scenario, acts=(act,), settings=drains)
                ask = replace(ask, replies=(slow,), leave=leave)
            case "does not read":
                large = tuple(Step("text", 3, size=20_000) for _ in range(dice.choice([6, 12, 40])))
                ask = replace(ask, stream=True, reading="never", replies=(Reply(large),))
                if len(large) == 12:  # blocked, too, when it is told that the server stops
                    scenario = replace(scenario, acts=(Act("shutdown", at + 2.0),))
            case _:
                fault = DiskFault("refuses parks", at, at + dice.choice([0.5, 2.0, 8.0]))
                parking = Reply((Step("host_call"),), gap=0.01)
                again = replace(
                    ask, name=f"{ask.name}x", tools=True, follows=True, tries=3, wait=dice.choice([0.0, 2.0]),
                    replies=(Reply(status=400), Reply((Step("text"),))),
                )  # fmt: skip
                if self._chance(0.5):  # the second park, after results that led to nothing
                    fault = replace(fault, at=at + 1.0, until=at + 8.0)
                    again = replace(again, wait=2.0)
                healed = dice.choice([fault, None])
                scenario = replace(scenario, disk=scenario.disk or ((fault,) if healed else ()))
                first = replace(ask, tools=True, tries=3, replies=(parking, parking, parking))
                return replace(scenario, clients=(*scenario.clients, Client((first, again), at)))
        return replace(scenario, clients=(*scenario.clients, Client((ask,), at)))

    def _with_lost_writes(self, scenario: Scenario) -> Scenario:
        """With rows that are written together, while the disk is slow and refuses what is in them."""
        dice, at = self._dice, scenario.clients[0].start
        kinds: list[DiskKind] = ["refuses to commit", "refuses rows", "refuses to begin"]
        disk = (
            DiskFault("slow", at + 0.9, at + 1.8, dice.choice([0.05, 0.5])),
            DiskFault(dice.choice(kinds), at + 1.2, at + dice.choice([1.3, 2.0, 6.0])),
        )
        reply = Reply((Step("text"), Step("wait", seconds=1.0), Step("text")))
        clients = []
        for number in range(4):
            self._asks += 1
            replies = (reply,) if number % 2 else (replace(reply, gap=0.2),)
            ask = Ask(f"a{self._asks}", stream=self._chance(0.7), replies=replies)
            clients.append(Client((ask,), at))
        return replace(scenario, clients=(*scenario.clients, *clients), disk=disk)

    def _outages(self) -> tuple[Outage, ...]:
        at = self._dice.choice([0.0, 1.0, 5.0])
        until = at + self._dice.choice([0.3, 2.0, 30.0])
        kind = self._dice.choice(["refuses", "refuses", "silent", "silent", "deaf"])
        provider = self._dice.choice(PROVIDERS)
        return (Outage(provider, at, until, silent=kind == "silent", deaf=kind == "deaf"),)

    def _disk(self) -> tuple[DiskFault, ...]:
        faults = []
        for _ in range(self._dice.randint(1, 3)):
            at = self._dice.choice([0.0, 0.5, 1.0, 2.0, 2.5, 4.0, 6.0, 8.0])
            kind = self._dice.choice(
                [
                    "slow",
                    "slow",
                    "hangs",
                    "late",
                    "late",
                    "refuses to begin",
                    "refuses rows",
                    "refuses parks",
                    "refuses parks",
                    "refuses to commit",
                    "unreadable",
                ]
            )
            lasts = self._dice.choice([0.2, 0.6, 2.0, 8.0, 25.0])
            seconds = self._dice.choice([0.05, 0.5, 4.0]) if kind == "slow" else 0.0
            faults.append(DiskFault(kind, at, at + lasts, seconds, self._passes() if kind == "late" else 0))
        return tuple(faults)

    def _reloads(self) -> tuple[Reload, ...]:
        dice = random.Random(f"reloads {self._seed}")
        if dice.random() > 0.2 or self._settings.connections < 100:  # two configurations have two pools
            return ()
        return tuple(
            Reload(dice.choice([0.0, 0.5, 1.0, 2.0, 4.0, 7.0]), dice.random() < 0.2, dice.randint(0, 40))
            for _ in range(dice.choice([1, 2, 5]))
        )

    def _acts(self) -> tuple[Act, ...]:
        acts = []
        at = 0.0
        for _ in range(self._dice.randint(1, 2)):
            at += self._dice.choice([0.0, 0.5, 1.0, 2.0, 3.0, 5.0, 9.0])
            kind = self._dice.choice(["crash", "crash", "shutdown", "shutdown", "kill"])
            passes = self._dice.randint(0, 60) if self._chance(0.6) else 0
            acts.append(Act(kind, at, self._dice.choice([0.0, 0.5, 3.0]), passes))
            at += 8.0
        return tuple(acts)

    # --- clients --------------------------------------------------------------------------------------

    def _client(self) -> Client:
        start = self._dice.choice([0.0, 0.0, 0.5, 1.0, 2.0])
        asks: list[Ask] = []
        for _ in range(self._dice.randint(1, 4)):
            asks.extend(self._conversation())
        return Client(tuple(asks), start, self._chance(0.8))

    def _program(self) -> Client:
        """One that embeds the agent: each of its turns calls its tools by itself."""
        asks = [
            self._ask(self._dice.choice(["alpha/one", "gamma/one"]), tools=True, follows=False)
            for _ in range(self._dice.randint(1, 3))
        ]
        plain = [replace(ask, copies=1, tries=1, spoiled="", stream=True, reading="at once") for ask in asks]
        return Client(tuple(plain), embedded=True)

    def _conversation(self) -> list[Ask]:
        """A request, and those that bring the results of what it asks for."""
        model = self._dice.choice([*(f"{name}/one" for name in PROVIDERS), "role:fast"])
        tools = self._chance(0.5)
        first = self._ask(model, tools=tools, follows=False)
        asks = [first]
        while tools and self._chance(0.75) and len(asks) < 4:
            asks.append(self._ask(model, tools=True, follows=True))
        return asks

    def _ask(self, model: str, *, tools: bool, follows: bool) -> Ask:
        dice, s = self._dice, self._settings
        self._asks += 1
        spoiled = (
            ""
            if self._chance(0.96) or follows
            else dice.choice(["not json", "no model", "unknown model", "stray result", "half a head"])
        )
        return Ask(
            name=f"a{self._asks}",
            model=model,
            stream=self._chance(0.7),
            tools=tools,
            extras=self._chance(0.3),
            preflight=dice.choice([0.0, 1.0, 4.0]) if self._chance(0.15) else None,
            wait=self._moment(s.ttl) if follows else self._moment(),
            follows=follows,
            results=dice.choice(["some", "edited"]) if follows and self._chance(0.15) else "all",
            copies=2 if self._chance(0.2 if follows else 0.08) else 1,
            tries=dice.choice([1, 2, 3]),
            reading=dice.choice(["slowly", "never", "never"]) if self._chance(0.1) else "at once",
            leave=self._leave() if self._chance(0.15) else None,
            spoiled=spoiled,
            replies=tuple(self._reply(tools) for _ in range(dice.choice([1, 1, 2, 3, 4]))),
        )

    def _leave(self) -> Leave:
        how = "half_close" if self._chance(0.25) else "close"
        passes = self._dice.randint(0, 40) if self._chance(0.6) else 0
        if self._chance(0.5):
            return Leave(how, pieces=self._dice.choice([1, 1, 2, 3]), passes=passes)
        return Leave(how, after=self._silence(), passes=passes)

    # --- upstreams ------------------------------------------------------------------------------------

    def _reply(self, tools: bool) -> Reply:
        dice = self._dice
        if self._chance(0.15):
            status = dice.choice(STATUSES)
            after = dice.choice([None, 0.0, 0.5, 30.0]) if status == 429 else None
            return Reply(
                status=status, delay=self._silence() if self._chance(0.3) else 0.0, retry_after=after
            )
        steps = [self._step(tools) for _ in range(dice.choice([0, 1, 1, 2, 3, 4]))]
        if all(step.kind in ("wait", "comment", "sealed") for step in steps):
            steps.append(Step("text", dice.randint(1, 4)))
        return Reply(
            tuple(steps),
            delay=self._silence() if self._chance(0.2) else 0.0,
            gap=dice.choice([0.01, 0.2]) if self._chance(0.3) else 0.0,
            ending=dice.choice(ENDINGS) if self._chance(0.25) else "finish",
            usage=self._chance(0.9),
            joined=self._chance(0.2),
            closes=self._chance(0.1),
            passes=self._passes() if self._chance(0.15) else 0,
            dropped=self._chance(0.04),
        )

    def _step(self, tools: bool) -> Step:
        dice = self._dice
        kinds = ["text", "text", "text", "reasoning", "sealed", "wait", "comment", "refusal"]
        kind = dice.choice(
            [*kinds, "host_call", "host_call", "server_call", "server_call"] if tools else kinds
        )
        pieces = dice.choice([1, 1, 2, 3])
        size = 20_000 if kind == "text" and self._chance(0.04) else 0
        if kind == "wait":
            return Step("wait", seconds=self._silence())
        if kind in ("server_call", "host_call"):
            limit = self._settings.tool if kind == "server_call" else self._settings.ttl
            passes = self._passes() if self._chance(0.2) else 0
            return Step(kind, pieces, self._moment(limit), dice.choice(MANNERS), passes=passes)
        return Step(kind, pieces, size=size)  # type: ignore[arg-type]
