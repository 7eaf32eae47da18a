"""The build hook: a wheel carries the generated protos, an editable install makes them."""

import runpy
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class GenerateProtos(BuildHookInterface[Any]):
    """Runs protos/generate.py before anything is packed."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Generates, and adds the result to a wheel (an editable install imports it in place)."""
        if self.target_name != "wheel":
            return
        protos = Path(self.root) / "protos"
        runpy.run_path(str(protos / "generate.py"), run_name="__main__")
        if version != "editable":
            for package in ("rapport", "buf"):
                build_data["force_include"][str(protos / "gen" / package)] = package
