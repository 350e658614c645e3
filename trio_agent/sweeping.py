"""What an agent does from time to time: it closes what has expired, and lets go of what nobody needs."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from contextlib import suppress

import trio

from trio_agent.peers import Peers
from trio_agent.providers.contract import Provider
from trio_agent.store.contract import Store, StoreError

logger = logging.getLogger("trio_agent")

SWEEP_SECONDS = 60.0
TIDY_SECONDS = 3600.0


async def sweep(
    store: Store,
    providers: Callable[[], Iterable[Provider]],
    now: Callable[[], float],
    expired: Callable[[int], None] = lambda count: None,
) -> None:
    """Close what has expired every minute, and tidy the store every hour, until it is cancelled.

    Args:
        providers: those that are up.
        now: wall time in seconds since the epoch.
        expired: is told how many parked turns were closed.
    """
    tidied = trio.current_time()
    while True:
        for provider in providers():
            _tidy(provider)
        try:
            if closed := await store.expire_parks(now()):
                logger.info("%d parked turns were closed as abandoned: nobody brought their results", closed)
                expired(closed)
            if trio.current_time() - tidied >= TIDY_SECONDS:
                tidied = trio.current_time()
                await store.sweep(now())
        except StoreError as error:
            logger.warning("the store could not be swept: %s", error)
        await trio.sleep(SWEEP_SECONDS)


async def sweep_after_deaths(store: Store, peers: Peers, now: Callable[[], float]) -> None:
    """Close what another worker left running when it died, as soon as that is known, until cancelled."""
    died, deaths = trio.open_memory_channel[None](1)

    def note(name: str) -> None:
        with suppress(trio.WouldBlock):  # a sweep is due already
            died.send_nowait(None)

    peers.on_gone(note)
    async for _ in deaths:
        try:
            await store.sweep(now())
        except StoreError as error:
            logger.warning("the store could not be swept: %s", error)


def _tidy(provider: Provider) -> None:
    """A plug-in that is no subclass of `Provider` may lack `tidy`; one that fails in it harms nobody."""
    tidy = getattr(provider, "tidy", None)
    try:
        if tidy is not None:
            tidy()
    except Exception:
        logger.exception("provider %s failed while it tidied up", provider.name)
