"""A candidate through the stages."""
