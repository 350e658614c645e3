"""sd_notify: what arrives at a real socket, and what happens where nobody listens."""

from __future__ import annotations

import socket
import uuid
from pathlib import Path

import pytest

from trio_agent.server.service_manager import ServiceManager


@pytest.mark.parametrize("kind", ["path", "abstract"])
def test_each_message_is_one_datagram(tmp_path: Path, kind: str) -> None:
    """In the words of sd_notify(3), to a socket in the file system and to one without a file."""
    name = f"trio-agent-{uuid.uuid4().hex}" if kind == "abstract" else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind("\0" + name if kind == "abstract" else name)
        listener.settimeout(5)
        told = ServiceManager("@" + name if kind == "abstract" else name, lambda: 1234567)
        told.ready("serves\n3 models")
        told.reloading()
        told.status("reads")
        told.stopping("ends")
        assert [listener.recv(1000).decode() for _ in range(4)] == [
            "READY=1\nSTATUS=serves 3 models",
            "RELOADING=1\nMONOTONIC_USEC=1234567",
            "STATUS=reads",
            "STOPPING=1\nSTATUS=ends",
        ]


@pytest.mark.parametrize("address", ["{tmp}/nobody", "@", "vsock:2:1", "{tmp}/" + "x" * 200, "a\0b"])
def test_nobody_listens(tmp_path: Path, address: str, caplog: pytest.LogCaptureFixture) -> None:
    """A warning, and the server goes on."""
    ServiceManager(address.format(tmp=tmp_path)).ready("x")
    assert "cannot be told of READY=1" in caplog.text


def test_a_listener_that_does_not_read_is_not_waited_for(tmp_path: Path) -> None:
    """Its socket is full after some messages; the rest is dropped."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        for _ in range(1000):
            ServiceManager(str(tmp_path / "notify")).status("busy")


def test_nobody_is_named(caplog: pytest.LogCaptureFixture) -> None:
    """Without the variable, or with an empty one, nothing is sent and nothing is said."""
    for env in ({}, {"NOTIFY_SOCKET": ""}):
        ServiceManager.of(env).ready("x")
    assert caplog.text == ""
    assert ServiceManager.of({"NOTIFY_SOCKET": "/run/x"})._address == "/run/x"
