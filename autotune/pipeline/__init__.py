"""Which stages a candidate goes through, in which order, and what they need."""
