"""Free TCP ports that stay free between two starts of the same process."""

import random
import socket

from deploy.stack.errors import StackError

# Below the range from which the kernel takes the ports of outgoing connections (Linux: 32768
# and up), so that none of ours can occupy the port of a process that is just being restarted.
FIRST_PORT = 20_000
LAST_PORT = 31_999
ATTEMPTS_MAX = 200


def free_port() -> int:
    """A port on 127.0.0.1 that nobody listens on, and that no process of ours was promised."""
    choice = random.SystemRandom()
    for _ in range(ATTEMPTS_MAX):
        port = choice.randint(FIRST_PORT, LAST_PORT)
        if port_is_free(port) and _promise(port):
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


def _promise(port: int) -> bool:
    """Takes a port until this process ends, for who takes one listens only later.

    The token is a name of a socket that lies in no file system, so it cannot be left behind.
    """
    token = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        token.bind(f"\0rapport-port-{port}")
    except OSError:
        token.close()
        return False
    token.detach()
    return True
