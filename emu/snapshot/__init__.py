"""How is a run saved at one point and resumed many times?"""
