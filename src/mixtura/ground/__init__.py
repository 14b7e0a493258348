"""What families stand on: ``mcmc`` (Markov chains that sample an energy, and how well they mixed)."""
