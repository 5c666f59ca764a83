"""A TD in a box: the TDX module, vCPUs and an untrusted VMM, so that a firmware image boots on any
machine.
"""
