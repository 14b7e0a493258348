"""Objectives of a mixture: terms, their sum, and its estimate from samples."""
