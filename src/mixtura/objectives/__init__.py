"""What a mixture is chosen by: terms, their sum, and the quadratic that samples give it."""
