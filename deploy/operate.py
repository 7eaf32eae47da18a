"""`make operate`: a service's own operator commands, on the platform that `make up` runs.

`python -m services.identity rebuild profiles` needs the environment that the service runs with;
this gives it the development platform's.
"""

import os
import subprocess
import sys

from deploy.stack.errors import StackError
from deploy.stack.keys import development_secrets
from deploy.stack.platform import running_platform
from deploy.stack.settings import Settings

USAGE = (
    'usage: make operate S=<service> DO="views | rebuild <view> | compare <view> | swap <view> | …"'
)
# Where the platform writes beside the databases, whose folder the server itself tells.
KEPT = ("nats", "logs")


def main() -> int:
    """Runs a service's operator command; 1 when there is no platform or no such service."""
    try:
        settings = Settings.from_env()
    except StackError as error:
        print(error)
        return 1
    dev = running_platform(settings.data_dir)
    if dev is None:
        print("No platform runs here: start it with `make up`.")
        return 1
    service, words = (sys.argv[1] if len(sys.argv) > 1 else ""), sys.argv[2:]
    if service not in dev["databases"] or not words:
        print(f"{USAGE}\nservices: {', '.join(sorted(dev['databases']))}")
        return 1
    if words[0] == "prove-erased":
        words += [str(place) for name in KEPT if (place := settings.data_dir / name).exists()]
    environment = {
        **os.environ,
        "RAPPORT_DATABASE_URL": dev["databases"][service],
        "RAPPORT_NATS_URL": dev["nats"],
        "RAPPORT_GRPC_ADDRESS": dev["services"][service],
        "RAPPORT_METRICS_ADDRESS": "127.0.0.1:0",
        "RAPPORT_INTERNAL_SECRET": development_secrets(settings.data_dir).internal_secret,
        "RAPPORT_LOG_FORMAT": "console",
        **{f"RAPPORT_{name.upper()}_ADDRESS": at for name, at in dev["services"].items()},
    }
    command = [sys.executable, "-m", f"services.{service}", *words]
    return subprocess.run(command, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
