"""Transcripts of sessions in memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from trio_agent.store.kept import TranscriptNode, check_size
from trio_agent.store.limits import Limits
from trio_agent.store.memory_uses import Uses

Session = tuple[str, str]


class MemoryTranscripts:
    """The part of `KeptStore` that is about transcripts."""

    def __init__(self, now: Callable[[], float], limits: Limits) -> None:
        self.sessions: dict[Session, dict[str, TranscriptNode]] = {}
        self._sessions_used = Uses(now)
        self._limits = limits

    async def _kept_io(self, op: str) -> None:
        raise NotImplementedError

    def put_node(self, node: TranscriptNode) -> None:
        """Add a node, or replace it, and keep the bounds."""
        at = (node.owner, node.session_id)
        new = at not in self.sessions
        nodes = self.sessions.setdefault(at, {})
        nodes[node.id] = node
        self._sessions_used.now(_name(at))
        while len(nodes) > self._limits.max_session_turns:
            del nodes[_least(nodes)]
        if new:
            self.evict_sessions()

    def evict_sessions(self) -> None:
        """Of too many, those that were unused longest."""
        by_name = {_name(session): session for session in self.sessions}
        over = len(self.sessions) - self._limits.max_sessions
        for name in [name for name, _ in zip(self._sessions_used.oldest(), range(over), strict=False)]:
            self._forget_session(by_name[name])

    async def find_nodes(self, owner: str, session_id: str, digests: Sequence[str]) -> list[TranscriptNode]:
        await self._kept_io("find_nodes")
        nodes, wanted = self._nodes((owner, session_id)), set(digests)
        return [_bare(node) for node in _newest_first(nodes) if node.digest in wanted]

    async def transcript(
        self,
        owner: str,
        session_id: str,
        node_id: str | None = None,
        *,
        most_bytes: int | None = None,
    ) -> list[TranscriptNode]:
        await self._kept_io("transcript")
        nodes = self._nodes((owner, session_id))
        newest = next(iter(_newest_first(nodes)), None)
        path = _path(nodes, node_id if node_id is not None or newest is None else newest.id)
        check_size((len(node.messages) for node in path), most_bytes)
        return path

    async def list_nodes(self, owner: str, session_id: str) -> list[TranscriptNode]:
        await self._kept_io("list_nodes")
        return [_bare(node) for node in _newest_first(self._nodes((owner, session_id)))]

    def _nodes(self, at: Session) -> dict[str, TranscriptNode]:
        self._sessions_used.touch(_name(at))
        return self.sessions.get(at, {})

    def forget_old_sessions(self, before: float) -> None:
        """Those that were not used since that time."""
        old = set(self._sessions_used.before(before))
        for at in [at for at in self.sessions if _name(at) in old]:
            self._forget_session(at)

    def _forget_session(self, at: Session) -> None:
        self.sessions.pop(at, None)
        self._sessions_used.forget(_name(at))


def _name(at: Session) -> str:
    owner, session_id = at
    return f"{len(owner)}:{owner}{session_id}"


def _bare(node: TranscriptNode) -> TranscriptNode:
    return msgspec.structs.replace(node, messages=b"[]")


def _newest_first(nodes: dict[str, TranscriptNode]) -> list[TranscriptNode]:
    return sorted(nodes.values(), key=lambda node: node.created_at)[::-1]


def _leaves(nodes: dict[str, TranscriptNode]) -> dict[str, TranscriptNode]:
    parents = {node.parent_id for node in nodes.values()}
    return {node.id: node for node in nodes.values() if node.id not in parents}


def _path(nodes: dict[str, TranscriptNode], node_id: str | None) -> list[TranscriptNode]:
    path: list[TranscriptNode] = []
    while node_id is not None and node_id in nodes and len(path) <= len(nodes):
        path.append(nodes[node_id])
        node_id = nodes[node_id].parent_id
    return path[::-1]


def _least(nodes: dict[str, TranscriptNode]) -> str:
    """What goes first: the oldest end of a branch that is not the newest, else the root of the only one."""
    leaves = _newest_first(_leaves(nodes))
    return leaves[-1].id if len(leaves) > 1 else _path(nodes, leaves[0].id)[0].id
