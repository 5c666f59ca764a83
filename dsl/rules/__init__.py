"""The trust rules of a flow (T01 to T04 and T05 to T10 as far as they are about steps), checked on the model.

`state` says what is known at a point of a flow, `walk` moves it along every path, `trust` and `order` hold
the rules. What T05, T06 and T10 say of declarations is in dsl.layout, what only the linker knows in
dsl.api.check_fits.
"""

from dsl.rules.walk import check

__all__ = ["check"]
