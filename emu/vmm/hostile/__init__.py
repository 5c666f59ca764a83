"""A VMM that attacks the guest: what it decides, and how a HOB and a payload can lie."""
