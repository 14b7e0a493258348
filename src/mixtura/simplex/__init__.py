"""The best point of the simplex, with a certificate: log-likelihood, quadratic and convex objectives, and intervals."""
