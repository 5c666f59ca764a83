"""What can be done with an image without a generator? Write, check, inspect, measure, describe."""
