"""How does a VMM attack the guest? What it decides, and how a HOB and a payload can lie."""
