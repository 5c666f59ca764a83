"""The untrusted side: what a VMM loads, tells and answers."""
