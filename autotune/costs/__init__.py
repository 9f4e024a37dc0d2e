"""The cost model: what a stage takes, in seconds. Plan, time-outs, strategy, progress and budget all use it."""
