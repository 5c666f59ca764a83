/* Does an event stay in the log? */
#include "../src/event_log.c"
#include "model.h"

/* Proved in sha384.c. */
void sha384(const struct span *data, uint8_t digest[SHA384_SIZE]) {
    reads(data->data, data->size);
    writes(digest, SHA384_SIZE);
}

void prove_event_log(void) {
    const struct span area = any_span(BOUND), name = any_span(BOUND), data = any_span(BOUND);
    const struct cpus cpus = {.ids = data};
    struct digest digest;
    struct log begun, log; /* of any use so far, and with anything pending */
    uint64_t number;
    uint32_t rtmr;
    int which;
    log.area = area;
    switch (which) {
    case 0:
        start_log(&area, &begun);
        break;
    case 1:
        log_platform_config(&log, rtmr, &name, &data, &digest);
        break;
    case 2:
        log_blob(&log, rtmr, &name, &data, &digest);
        break;
    case 3:
        log_number(&log, rtmr, &name, number, &digest);
        break;
    case 4:
        log_cpus(&log, rtmr, &name, &cpus, &digest);
        break;
    case 5:
        log_separator(&log, rtmr, &digest);
        break;
    default:
        log_commit(&log);
    }
}
