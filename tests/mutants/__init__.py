"""How many small faults would the tests notice? A list of them, a runner, and the score by room."""
