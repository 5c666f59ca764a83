"""How does a flow file become a checked firmware model?"""
