"""What does the C core need? Headers, layout data and, for tests and benchmarks, a host library."""
