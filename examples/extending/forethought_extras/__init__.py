"""An engine, a predictor, a grader and an allocator that forethought finds by name once this package is installed."""
