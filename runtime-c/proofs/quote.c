/* Do the request for a quote and the answer keep to their buffers? */
#include "../src/quote.c"
#include "model.h"

void prove_quote(void) {
    struct span window = any_span(BOUND), to = any_span(BOUND), out;
    const struct span report = any_span(BOUND);
    quote_request(&window, &report);
    quote_answer(&to, &window, &out);
}
