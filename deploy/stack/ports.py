"""Free TCP ports that stay free between two starts of the same process."""

import random
import socket

from deploy.stack.errors import StackError

# Below the range from which the kernel takes the ports of outgoing connections (Linux: 32768
# and up), so that none of ours can occupy the port of a process that is just being restarted.
FIRST_PORT = 20_000
LAST_PORT = 31_999
ATTEMPTS_MAX = 200

# Who asks for several starts listening only later, so a port that looks free may be promised.
_promised: set[int] = set()


def free_port() -> int:
    """A port on 127.0.0.1 that nobody listens on, another one each time."""
    choice = random.SystemRandom()
    for _ in range(ATTEMPTS_MAX):
        port = choice.randint(FIRST_PORT, LAST_PORT)
        if port not in _promised and port_is_free(port):
            _promised.add(port)
            return port
    message = f"no free port between {FIRST_PORT} and {LAST_PORT} after {ATTEMPTS_MAX} attempts"
    raise StackError(message)


def port_is_free(port: int) -> bool:
    """Whether a server could listen on the port now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
