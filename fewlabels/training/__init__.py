"""Training: the loop, objectives, optimizers, checkpoints, progress, distributed processes and tuning of speed."""
