"""Which candidate next."""
