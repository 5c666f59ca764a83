"""How does a checked firmware model become machine code and an image?"""
