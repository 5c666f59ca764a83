/* What does a TD ask the VMM's quoting service, and what does it take of the answer?
 *
 * The buffer is shared: status and size are read once each, and the quote is copied once.
 * Source: Intel TDX Guest-Host Communication Interface 1.5, TDG.VP.VMCALL<GetQuote>, "Shared buffer". */
#include "primitives.h"

void quote_request(struct span *window, const struct span *report) {
    const struct ghci_quote_header head = {.version = GHCI_QUOTE_VERSION, .in_size = TDX_REPORT_SIZE};
    if (report->size < TDX_REPORT_SIZE || window->size < sizeof head + TDX_REPORT_SIZE)
        return; /* the prelude's spans rule it out */
    memcpy(window->data, &head, sizeof head);
    memcpy(window->data + sizeof head, report->data, TDX_REPORT_SIZE);
}

status_t quote_answer(struct span *to, const struct span *window, struct span *out) {
    struct ghci_quote_header head;
    if (window->size < sizeof head)
        return TDF_E_QUOTE_FAILED;
    /* The buffer begins on a page: each field is aligned, and read once. */
    head.status = *(const volatile uint64_t *)(window->data + offsetof(struct ghci_quote_header, status));
    if (head.status == GHCI_QUOTE_IN_FLIGHT)
        return TDF_E_QUOTE_PENDING;
    head.out_size = *(const volatile uint32_t *)(window->data + offsetof(struct ghci_quote_header, out_size));
    if (head.status != 0 || head.out_size > window->size - sizeof head || head.out_size > to->size)
        return TDF_E_QUOTE_FAILED;
    TDF_BARRIER();
    memcpy(to->data, window->data + sizeof head, head.out_size);
    out->data = to->data;
    out->size = head.out_size;
    return TDF_OK;
}
