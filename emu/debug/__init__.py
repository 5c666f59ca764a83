"""How does one look into a run? Traces, profiles, timelines, a debugger's server and snapshots."""
