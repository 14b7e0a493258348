"""Networks. No probability here: ``masked`` (who sees whom), and one file for each kind of shape the families need."""
