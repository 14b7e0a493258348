"""Files to tables (``read``), tables to tensors (``schema``), and back; ``examples`` come with the package."""
