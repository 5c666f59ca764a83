/* What does a TD ask the VMM's quoting service, and what does it take of the answer?
 *
 * The buffer is shared: status and size are read once each, and the quote is copied once.
 * Source: Intel TDX Guest-Host Communication Interface 1.5, TDG.VP.VMCALL<GetQuote>, "Shared buffer". */
#include "primitives.h"

#define QUOTE_VERSION 1u
#define QUOTE_IN_FLIGHT UINT64_MAX
#define TD_REPORT_SIZE 1024u

struct quote_buffer {
    uint64_t version, status;
    uint32_t in_size, out_size;
    uint8_t data[];
};

void quote_request(struct span *window, const struct span *report) {
    struct quote_buffer *buffer = (struct quote_buffer *)window->data;
    if (report->size < TD_REPORT_SIZE || window->size < sizeof *buffer + TD_REPORT_SIZE)
        return; /* the prelude's spans rule it out */
    buffer->version = QUOTE_VERSION;
    buffer->status = 0;
    buffer->in_size = TD_REPORT_SIZE;
    buffer->out_size = 0;
    memcpy(buffer->data, report->data, TD_REPORT_SIZE);
}

status_t quote_answer(struct span *to, const struct span *window, struct span *out) {
    const struct quote_buffer *buffer = (const struct quote_buffer *)window->data;
    if (window->size < sizeof *buffer)
        return TDF_E_QUOTE_FAILED;
    uint64_t status = *(const volatile uint64_t *)&buffer->status;
    if (status == QUOTE_IN_FLIGHT)
        return TDF_E_QUOTE_PENDING;
    uint64_t size = *(const volatile uint32_t *)&buffer->out_size;
    if (status != 0 || size > window->size - sizeof *buffer || size > to->size)
        return TDF_E_QUOTE_FAILED;
    memcpy(to->data, buffer->data, size);
    out->data = to->data;
    out->size = size;
    return TDF_OK;
}
