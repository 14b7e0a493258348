"""Training: one game of one or more players, its stopping, its checkpoints, its devices. The only ``.backward(``."""
