"""`make down`: stops the platform that `make up` runs, and waits until it is gone."""

import os
import signal
import sys
import time

from deploy.stack.claim import Claim
from deploy.stack.errors import StackError
from deploy.stack.settings import Settings

WITHIN_S = 90.0
LOOK_INTERVAL_S = 0.1


def main() -> int:
    """Exits 0 when nothing runs any more."""
    try:
        settings = Settings.from_env()
    except StackError as error:
        print(error)
        return 1
    where = os.path.relpath(settings.data_dir)
    claim = Claim(settings.data_dir)
    pid = claim.holder()
    if pid is None:
        print(f"Nothing runs on {where}.")
        return 0
    print(f"Stopping the platform on {where} (pid {pid})")
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + WITHIN_S
    while claim.holder() == pid:
        if time.monotonic() > deadline:
            print(f"It still runs after {WITHIN_S:g} s: `kill -9 {pid}` ends it and its processes.")
            return 1
        time.sleep(LOOK_INTERVAL_S)
    print("Stopped; its data stays.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
