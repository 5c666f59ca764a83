"""Did a firmware keep its promises? What a payload is shown, what one run must show, where two may differ."""
