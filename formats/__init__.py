"""What do the bytes and numbers of the specifications look like? Each is declared once, here."""
