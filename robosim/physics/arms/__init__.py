"""Arms: those known by name, and any other from its MJCF file with a YAML beside it."""
