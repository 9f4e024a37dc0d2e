"""What a stage takes, in seconds: the one cost model of plan, time-outs, strategy, progress and budget."""
