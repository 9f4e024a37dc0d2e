"""What is kept: the cache of stage results, and the record of a sweep."""
