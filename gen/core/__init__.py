"""The C core's side: headers, layout data and the host library."""
