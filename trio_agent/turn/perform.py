"""Performing effects: one `match`, one small step each."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Literal, TypeAlias, cast

import msgspec
import trio

from trio_agent.errors import STORE_RETRY_SECONDS
from trio_agent.statemachine import effects as fx
from trio_agent.statemachine import events as ev
from trio_agent.statemachine.conversation import ToolCall
from trio_agent.statemachine.failure import Problem
from trio_agent.store.contract import StoreError
from trio_agent.turn.journal import Journal
from trio_agent.turn.sink import Sink, SinkClosedError
from trio_agent.turn.timers import Timers
from trio_agent.turn.toolbox import HostTools, ToolBox

if TYPE_CHECKING:
    from trio_agent.turn.driver import Driver

logger = logging.getLogger("trio_agent.turn")

OUTPUTS: frozenset[type] = frozenset(
    {
        fx.Commit,
        fx.SendRole,
        fx.SendText,
        fx.SendRefusal,
        fx.SendReasoning,
        fx.SendReasoningSignature,
        fx.SendReasoningEnd,
        fx.SendRedactedReasoning,
        fx.SendReasoningData,
        fx.SendToolCall,
        fx.SendToolArguments,
        fx.SendToolProgress,
        fx.SendKeepalive,
        fx.Finish,
        fx.SendError,
        fx.Reject,
    }
)
# Not every wire shows these, so they do not count as something that the client has heard.
UNHEARD: frozenset[type] = frozenset(
    {
        fx.SendReasoningSignature,
        fx.SendReasoningEnd,
        fx.SendRedactedReasoning,
        fx.SendReasoningData,
        fx.SendToolProgress,
    }
)
DURABLE: frozenset[type] = frozenset({fx.OpenTurn, fx.Park, fx.Repark, fx.CloseTurn})
_Code: TypeAlias = Literal["store_unavailable", "internal_error"]


class Performer:
    """Does what the machine asks for, in order, under the turn's lock."""

    def __init__(
        self,
        driver: Driver,
        *,
        sink: Sink,
        journal: Journal,
        timers: Timers,
        tools: ToolBox,
        host: HostTools | None,
    ) -> None:
        self._driver = driver
        self._sink = sink
        self._journal = journal
        self._timers = timers
        self._tools = tools
        self._host = host
        self._torn = False
        self._failed_closing = False
        self.nursery: trio.Nursery | None = None
        self.parked = False

    async def work_off(self, due: list[fx.Effect]) -> None:
        """Perform everything that is due. Outputs in a row go out in one write.

        A cancellation leaves in the queue what was not begun, so that nothing is lost that must be recorded.
        """
        if OUTPUTS.issuperset(map(type, due)):
            # Most chunks: nothing but words, which stay in the queue until they are sent.
            if due:
                outputs = cast("list[fx.Output]", list(due))
                await trio.lowlevel.checkpoint_if_cancelled()
                due.clear()
                await self._send(outputs)
            return
        await self._work_off_mixed(due)

    async def _work_off_mixed(self, due: list[fx.Effect]) -> None:
        outputs: list[fx.Output] = []
        while due:
            effect = due[0]
            kind = type(effect)
            if kind in OUTPUTS:
                outputs.append(cast("fx.Output", effect))
                due.pop(0)
                continue
            if kind is fx.Repark:
                # What was said belongs to a response that nobody will see. Sending it could be cancelled,
                # and the park must be put back for the very client that leaves.
                outputs = []
            if outputs and kind in DURABLE:
                # What was said already is not held back until the disk has answered.
                await self._send_due(outputs, due)
                outputs = []
            due.pop(0)
            await self._perform(effect, due)
        if outputs:
            await self._send_due(outputs, due)

    async def record_rest(self, due: list[fx.Effect]) -> list[fx.Output]:
        """Perform only what must be written down, for the world is closing; returns the outputs left over."""
        untold: list[fx.Output] = []
        while due:
            effect = due.pop(0)
            match effect:
                case fx.RecordCall():
                    self._journal.record_call(effect)
                case fx.Repark():
                    await self._repark(effect, due)
                case fx.CloseTurn():
                    await self._close(effect, due, untold)
                case _ if type(effect) in OUTPUTS:
                    untold.append(cast("fx.Output", effect))
                case _:
                    pass
        return untold

    async def tell(self, outputs: list[fx.Output]) -> None:
        """Send the last outputs of a turn that ended irregularly, unless an earlier write was cut short."""
        if not outputs or self._torn:
            return
        try:
            await self._send(outputs)
        except SinkClosedError:
            pass
        except Exception:
            logger.exception("turn %s: its client could not be told", self._driver.turn.spec.turn_id)

    async def _send_due(self, outputs: list[fx.Output], due: list[fx.Effect]) -> None:
        # A turn that is left here still owes them, and whoever looks while this task is woken must see it.
        due[:0] = outputs
        await trio.lowlevel.checkpoint_if_cancelled()
        del due[: len(outputs)]
        await self._send(outputs)

    async def _send(self, outputs: list[fx.Output]) -> None:
        self._torn = True
        await self._sink.send(outputs)
        self._torn = False
        if not UNHEARD.issuperset(map(type, outputs)):
            self._timers.last_output = self._timers.now()

    async def _perform(self, effect: fx.Effect, due: list[fx.Effect]) -> None:
        match effect:
            case fx.SetTimer(timer, seconds):
                self._timers.set(timer, seconds)
            case fx.ClearTimer(timer):
                self._timers.clear(timer)
            case fx.StartCall():
                self._driver.call_model(effect)
            case fx.StopCall():
                self._driver.stop_call()
            case fx.RunTool(call):
                self._start(self._run_tool, call)
            case fx.CallHost(calls):
                for call in calls:
                    self._start(self._call_host, call)
            case fx.RecordCall():
                self._journal.record_call(effect)
            case fx.OpenTurn():
                await self._open(due)
            case fx.Park():
                await self._park(effect, due)
            case fx.Repark():
                await self._repark(effect, due)
            case fx.CloseTurn():
                await self._close(effect, due)
            case _:
                raise AssertionError(f"nobody performs {type(effect).__name__}")

    def _start(self, what: Callable[[ToolCall], Awaitable[None]], call: ToolCall) -> None:
        if self.nursery is None:
            raise AssertionError("a turn performs effects inside its nursery")
        self.nursery.start_soon(self._noted, what, call)

    async def _noted(self, what: Callable[[ToolCall], Awaitable[None]], call: ToolCall) -> None:
        with self._driver.ending:
            await what(call)

    async def _run_tool(self, call: ToolCall) -> None:
        began = trio.current_time()
        result = await self._tools.run(call)
        # A tool may end in the very moment in which the turn is left, which then does not go on with it.
        await trio.lowlevel.checkpoint_if_cancelled()
        now = trio.current_time()
        note = partial(self._journal.note_tool, call.name, call.id, now - began, failed=result.is_error)
        # A result that the turn does not take any more is none in its record either.
        await self._driver.dispatch((ev.ToolFinished(result, now),), taken=note)

    async def _call_host(self, call: ToolCall) -> None:
        if self._host is None:
            raise AssertionError("a turn that waits alive has a host")
        result = await self._host.call(call)
        await trio.lowlevel.checkpoint_if_cancelled()
        await self._driver.dispatch((ev.HostToolsReturned((result,), trio.current_time()),))

    # --- what must be written down -------------------------------------------------------------------

    async def _open(self, due: list[fx.Effect]) -> None:
        try:
            await self._journal.open()
        except Exception as error:  # noqa: BLE001 - told and logged below
            self._go_otherwise(error, due)

    async def _park(self, effect: fx.Park, due: list[fx.Effect]) -> None:
        try:
            await self._journal.park(effect, _outputs(due))
        except Exception as error:  # noqa: BLE001 - told and logged below
            self._go_otherwise(error, due)
        else:
            self.parked = True

    async def _repark(self, effect: fx.Repark, due: list[fx.Effect]) -> None:
        try:
            await self._journal.repark(effect, _outputs(due))
        except Exception as error:  # noqa: BLE001 - told and logged below
            self._go_otherwise(error, due)
        else:
            self.parked = True

    def _go_otherwise(self, error: Exception, due: list[fx.Effect]) -> None:
        """Nothing that was to follow the write may happen; the machine says what happens instead."""
        code, why = self._meaning(error)
        effects = self._driver.effects_of(ev.ServerFailed(code, why, trio.current_time()))
        due.clear()  # only now, for what was due says whether the call was made
        due.extend(effects)

    async def _close(
        self, effect: fx.CloseTurn, due: list[fx.Effect], untold: Sequence[fx.Output] = ()
    ) -> None:
        """Write the outcome.

        Args:
            untold: outputs from before the outcome that nobody was sent.
        """
        try:
            await self._journal.close(effect, [*untold, *_outputs(due)])
        except Exception as error:  # noqa: BLE001 - told and logged below
            code, why = self._meaning(error)
            if effect.outcome == "completed":
                self._take_back(code, why, due)
            if code == "store_unavailable" or self._failed_closing:
                return
            # The disk is not at fault, so the outcome can be written: as the server's own failure.
            self._failed_closing = True
            if effect.outcome == "completed":
                problem = Problem(code=code, message=why)
                effect = msgspec.structs.replace(effect, outcome="failed", reason=code, problem=problem)
            await self._close(effect, due, untold)

    def _meaning(self, error: Exception) -> tuple[_Code, str]:
        """The code and the words for a write that failed, which the log is told of."""
        turn_id = self._driver.turn.spec.turn_id
        if isinstance(error, StoreError):
            logger.error("turn %s: %s", turn_id, error)
            return "store_unavailable", str(error)
        logger.error("turn %s: the server failed as it wrote", turn_id, exc_info=error)
        return "internal_error", "The server failed; its log says why."

    def _take_back(self, code: str, why: str, due: list[fx.Effect]) -> None:
        """An answer that could not be accounted for is not called complete."""
        retry_after = STORE_RETRY_SECONDS if code == "store_unavailable" else None
        problem = Problem(code=code, message=why, retry_after=retry_after)
        committed = not any(type(each) is fx.Commit for each in due)
        whole = next(each for each in due if isinstance(each, fx.Finish))
        due.clear()
        due.append(
            fx.SendError(problem, whole.usage, whole.cost_usd, whole.usage_source)
            if committed
            else fx.Reject(problem)
        )


def _outputs(due: Iterable[fx.Effect]) -> list[fx.Output]:
    return [cast("fx.Output", each) for each in due if type(each) in OUTPUTS]
