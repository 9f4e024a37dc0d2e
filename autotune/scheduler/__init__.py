"""What is in flight, the budget, the end of a sweep."""
