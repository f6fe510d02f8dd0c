"""Address: the servers of a fleet, and the credentials for them."""

from __future__ import annotations

from ipaddress import ip_address
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from manager.values import text

FLEET = "subagents"
"""The name of a fleet whose address has no path. It begins all subjects."""

_SCHEMES = ("nats", "tls")


class Address(NamedTuple):
    """The servers of a fleet, as `nats://user:password@host,host/FLEET` names them."""

    servers: tuple[str, ...]
    """The URLs of the servers, without user and password."""

    fleet: str
    """The first part of all subjects of the fleet."""

    user: str | None
    """The user, or None."""

    password: str | None
    """The password, or None. A user without a password is a token."""

    @classmethod
    def of(cls, url: str) -> Address:
        """Return the address in a URL. Raises ValueError, or TypeError if it is not a string."""
        url = text("url", url)
        parts = urlsplit(url)
        login, _, hosts = parts.netloc.rpartition("@")
        servers = tuple(f"{parts.scheme}://{host}" for host in hosts.split(",") if host)
        if parts.scheme not in _SCHEMES or not servers:
            raise ValueError(f"{shown(url)}: is not the address of a server; give nats://HOST,HOST")
        user, has_password, password = login.partition(":")
        fleet = parts.path.strip("/") or FLEET
        if not fleet.replace("-", "").replace("_", "").isalnum() or not fleet.isascii():
            raise ValueError(f"{shown(url)}: the fleet's name has only letters, digits, - and _")
        return cls(
            servers,
            fleet,
            unquote(user) or None,
            unquote(password) if has_password else None,
        )

    @property
    def is_loopback(self) -> bool:
        """True if all servers are on this machine."""
        return all(map(_is_loopback, self.servers))


def shown(url: str) -> str:
    """Return a URL without user and password, for messages."""
    parts = urlsplit(url)
    hosts = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{hosts}{parts.path}" if parts.scheme else parts.path


def _is_loopback(server: str) -> bool:
    host = urlsplit(server).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
