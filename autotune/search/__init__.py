"""Which candidate next, what became of it, and which one wins."""
