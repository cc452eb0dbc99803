"""What the pretraining loop runs on: pairs of views, a trial of the machine, checkpoints, signals."""
