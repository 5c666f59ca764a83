"""How does an image run without TDX hardware? A module, vCPUs and an untrusted VMM, on any machine."""
