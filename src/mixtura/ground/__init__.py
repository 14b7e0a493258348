"""What families, judges and policies stand on: numerics that know no model."""
