"""The face that scikit-learn knows."""
