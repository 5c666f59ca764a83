"""From linked code to an image a VMM loads, and what such an image is: layout, measurement, rules."""
