"""Who listens at a port of this machine: only the server's own account is told a password there.

While the server is down, any account may listen where it did, and would be told what we tell the server.
"""

import ipaddress
import os
import pwd
import socket
import struct
from collections.abc import Iterator

from datastores.contract import Node, NotReady, ToolFailed

NETLINK_SOCK_DIAG, SOCK_DIAG_BY_FAMILY, DUMP, LISTENING = 4, 20, 0x301, 1 << 10
"""How the kernel is asked for sockets, sock_diag(7); its files in /proc know every connection, and take 8 ms."""
_HEADER = struct.Struct("=IHHII")
_ASKED = struct.Struct("=BBBxI48x")
_TOLD = struct.Struct("!4xH2x16s28x12x")
_ACCOUNT = struct.Struct("=I")
"""Port and address of a socket, then, behind what is not wanted, its account."""
_DONE, _ERROR = 3, 2
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def reached(host: str, port: int, timeout: float = 5.0) -> socket.socket:
    """Return a connection; ``NotReady`` where nobody listens."""
    try:
        return socket.create_connection((host, port), timeout=timeout)
    except OSError as error:
        raise NotReady(f"the server does not listen at port {port}: {error.strerror or error}") from None


def prove(node: Node, line: socket.socket) -> None:
    """Return where a connection is to the server's own account; ``ToolFailed`` where it is to another one."""
    try:
        address, port = line.getpeername()[:2]
    except OSError as error:
        raise NotReady(f"the server has shut the connection: {error.strerror or error}") from None
    try:
        there = accounts(str(address), int(port))
    except OSError as error:
        raise ToolFailed(f"the kernel does not tell who listens at port {port}: {error}") from error
    if not there:
        raise NotReady(f"the server does not listen at port {port} any more")
    if there != {account(node)}:
        raise ToolFailed(f"another account of this machine listens at port {port}: it is told no password")


def accounts(address: str, port: int) -> set[int]:
    """Return the accounts, by number, that listen at an address of this machine, or at all of them, at a port."""
    wanted = _plain(ipaddress.ip_address(address))
    return {uid for there, at, uid in _listeners() if at == port and (there.is_unspecified or there == wanted)}


def account(node: Node) -> int:
    """Return the number of the account that the server runs as."""
    return pwd.getpwnam(node.installation.owner).pw_uid if os.geteuid() == 0 else os.geteuid()


def _plain(address: Address) -> Address:
    return (isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped) or address


def _listeners() -> Iterator[tuple[Address, int, int]]:
    """Yield the address, port and account of all that listens."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_SOCK_DIAG) as kernel:
        for family in (socket.AF_INET, socket.AF_INET6):
            asked = _ASKED.pack(family, socket.IPPROTO_TCP, 0, LISTENING)
            kernel.sendall(_HEADER.pack(_HEADER.size + len(asked), SOCK_DIAG_BY_FAMILY, DUMP, 0, 0) + asked)
            for message in _messages(kernel):
                port, raw = _TOLD.unpack_from(message)
                (uid,) = _ACCOUNT.unpack_from(message, _TOLD.size)
                packed = raw[:4] if family == socket.AF_INET else raw
                yield _plain(ipaddress.ip_address(packed)), port, uid


def _messages(kernel: socket.socket) -> Iterator[bytes]:
    """Yield what the kernel answers, to its end; ``OSError`` where it does not."""
    while True:
        data = kernel.recv(1 << 16)
        while data:
            length, kind, *_ = _HEADER.unpack_from(data)
            if kind == _DONE:
                return
            if kind == _ERROR:
                raise OSError("the kernel does not tell who listens")
            yield data[_HEADER.size : length]
            data = data[-(-length // 4) * 4 :]
