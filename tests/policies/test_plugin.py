"""LeRobot finds the plug-in by its distribution, and the plug-in registers everything without heavy imports."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import distribution

PROBE = """
import json, logging, sys
errors = []
logging.getLogger().addHandler(type("Catch", (logging.Handler,), {"emit": lambda self, r: errors.append(r)})(40))
from lerobot.utils.import_utils import register_third_party_plugins
register_third_party_plugins()
from lerobot.configs import PreTrainedConfig
from lerobot.envs import EnvConfig
print(json.dumps({
    "errors": [record.getMessage() for record in errors],
    "policies": sorted(PreTrainedConfig.get_known_choices()),
    "environments": sorted(EnvConfig.get_known_choices()),
    "heavy": [name for name in ("mujoco", "warp", "robosim.world_model") if name in sys.modules],
}))
"""


def test_lerobot_registers_the_policy_and_both_environments():
    # A failing plug-in import is only logged by LeRobot, so the log is checked as well as the registries.
    done = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["errors"] == []
    assert "robosim_latent" in found["policies"]
    assert {"robosim_physics", "robosim_learned"} <= set(found["environments"])
    assert found["heavy"] == []


def test_the_distribution_is_named_like_its_module():
    # `lerobot_policy_` with underscores is the prefix that LeRobot looks for.
    assert distribution("lerobot_policy_robosim").metadata["Name"] == "lerobot_policy_robosim"
