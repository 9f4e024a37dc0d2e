"""What numbers mean: pure and light."""
