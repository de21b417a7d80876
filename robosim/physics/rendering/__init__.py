"""Pictures of a scene: ray tracing on the CPU by default, OpenGL by option."""
