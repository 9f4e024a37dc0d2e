"""Statistics and the rule that chooses the winner: pure functions, no heavy imports."""
