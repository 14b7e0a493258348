"""The main job: from a file to a verdict in a run folder."""
