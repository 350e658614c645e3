"""How turns queue for their place among those that run."""

from trio_agent.queueing.fair_queue import FairQueue
from trio_agent.queueing.slots import WAIT_BUCKETS, NoSlotError, Slot, SlotFigures, TurnSlots

__all__ = ["FairQueue", "NoSlotError", "Slot", "SlotFigures", "TurnSlots", "WAIT_BUCKETS"]
