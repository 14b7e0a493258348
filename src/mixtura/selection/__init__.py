"""Online selection: a policy that chooses, arms that are asked, a feature space for what they give, and the ledger of it all."""
