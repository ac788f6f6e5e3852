"""Ports that are one test's alone. The kernel gives a free one more than once, and to whoever connects to anything meanwhile."""
import socket
from pathlib import Path

FIRST = 10000
BEHIND = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])  # from there on the kernel gives them
_claims = []
_candidates = iter(range(FIRST, BEHIND))


def is_free(port):
    """TCP and UDP, of whatever address."""
    with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
        try:
            tcp.bind(("", port))
            udp.bind(("", port))
        except OSError:
            return False
    return True


def free_port():
    """One that nothing has, and that no test on this host is given as long as this process lives: a socket's name says so."""
    for port in _candidates:
        claim = socket.socket(socket.AF_UNIX)
        try:
            claim.bind(f"\0hull-test-port-{port}")
        except OSError:
            claim.close()
            continue
        _claims.append(claim)  # also of one that is not free: it is looked at once
        if is_free(port):
            return port
    raise OSError("no port is left")
