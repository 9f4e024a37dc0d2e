"""The benchmark of the search: oracle tables, a replay on simulated time, peers, and their comparison."""
