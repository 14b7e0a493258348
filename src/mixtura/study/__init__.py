"""What a person holds: a finished run, and its models with frames in and out."""
