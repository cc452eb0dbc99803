"""Reports drawn from a result's JSON alone; nothing here imports torch."""
