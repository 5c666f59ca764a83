"""Does a flow obey the trust rules? T01 to T04, and T05 to T11 as far as they are about steps, on the model.

`table` names the rules; `state` says what is known at a point of a flow, `context` is what every rule has at
hand, `walk` moves the state along every path, `trust`, `values` and `calls` hold the rules. What T05, T06 and
T10 say of declarations is in dsl.layout, what only the linker knows in dsl.api.check_fits.
"""

from dsl.rules.table import RULES
from dsl.rules.walk import check

__all__ = ["RULES", "check"]
