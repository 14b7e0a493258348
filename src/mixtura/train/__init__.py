"""Training: the loop for games of one or more players, stopping, checkpoints and devices. The only call of ``.backward(``."""
