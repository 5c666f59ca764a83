"""What does a guest see of the TDX module? Leaves, measurement registers, CPUID, MSR and control rules."""
