"""Networks without any probability: masked (autoregressive) networks, and one file for each architecture that families need."""
