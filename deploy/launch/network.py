"""Which network interface leads to the other nodes.

gloo listens where the machine's own name points, which on many machines (Debian's 127.0.1.1, containers, network
namespaces) is the loopback interface: the other nodes then wait for it in vain.
"""

import array
import fcntl
import socket
import struct

_SIOCGIFADDR = 0x8915


def interface_towards(host: str, port: int) -> str | None:
    """Name of the interface whose address this machine uses to reach ``host``; None where that cannot be told.

    Nothing is sent: the kernel chooses a route for a datagram socket when it is connected.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, socket.AF_INET, socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.connect(address)
            own: str = probe.getsockname()[0]
    except OSError:
        return None
    return next((name for _, name in socket.if_nameindex() if _address_of(name) == own), None)


def _address_of(interface: str) -> str | None:
    """Its first IPv4 address."""
    request = array.array("B", struct.pack("256s", interface.encode()[:15]))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        try:
            fcntl.ioctl(any_socket, _SIOCGIFADDR, request)
        except OSError:
            return None
    return socket.inet_ntoa(request.tobytes()[20:24])
