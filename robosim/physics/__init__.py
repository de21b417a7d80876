"""Physics: arms, the scene, tasks, experts, the renderer, `PhysicsEnv`, collection.

Importing this package registers `robosim/Physics-v0`, for `gymnasium.make` and `gymnasium.make_vec`; MuJoCo is
imported only when one is made.
"""

from __future__ import annotations

import gymnasium

ENV_ID = "robosim/Physics-v0"

if ENV_ID not in gymnasium.registry:
    gymnasium.register(
        id=ENV_ID,
        entry_point="robosim.physics.single_env:SinglePhysicsEnv",
        vector_entry_point="robosim.physics.env:PhysicsEnv",
    )
