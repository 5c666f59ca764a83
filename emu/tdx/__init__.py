"""The TDX module as a guest sees it: leaves, measurement registers, CPUID, MSR and control-register rules."""
