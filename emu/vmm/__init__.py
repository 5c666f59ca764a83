"""What is on the untrusted side? What a VMM loads, reports and answers."""
