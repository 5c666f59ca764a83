/* How does a measurement become an event of the CC event log?
 *
 * An event is written behind the used part; only log_commit, after its digest was extended, makes it part of the log.
 * Source: TCG PC Client Platform Firmware Profile 10; td-shim specification, "TD event log". */
#include "formats.h"
#include "primitives.h"
#include "sha384.h"

#define VENDOR "tdforge"
#define VENDOR_SIZE (sizeof VENDOR - 1)
#define NAME_MAX 254u /* with its NUL counted by one byte, PFP 10.2.5 */

status_t start_log(const struct span *area, struct log *log) {
    struct cc_pcr_event head;
    struct cc_spec_id spec;
    const uint64_t size = sizeof head + sizeof spec + VENDOR_SIZE;
    if (area->size < size + CC_LOG_END_SIZE)
        return TDF_E_LOG_FULL;
    memset(&head, 0, sizeof head);
    head.type = EV_NO_ACTION;
    head.size = sizeof spec + VENDOR_SIZE;
    memset(&spec, 0, sizeof spec);
    memcpy(spec.signature, CC_SPEC_ID_SIGNATURE, sizeof CC_SPEC_ID_SIGNATURE);
    spec.spec_minor = CC_SPEC_MINOR;
    spec.spec_major = CC_SPEC_MAJOR;
    spec.spec_errata = CC_SPEC_ERRATA;
    spec.uintn_size = CC_UINTN_64_BIT;
    spec.algorithm_count = 1;
    spec.algorithm_id = CC_ALG_SHA384;
    spec.digest_size = CC_DIGEST_SIZE;
    spec.vendor_size = VENDOR_SIZE;
    memset(area->data, CC_LOG_FILL, area->size);
    memcpy(area->data, &head, sizeof head);
    memcpy(area->data + sizeof head, &spec, sizeof spec);
    memcpy(area->data + sizeof head + sizeof spec, VENDOR, VENDOR_SIZE);
    log->area = *area;
    log->used = size;
    log->pending = 0;
    return TDF_OK;
}

/* `at` is where the next event goes, which has `size` bytes of data; nothing of one that was never extended is left. */
static status_t make_room(struct log *log, uint64_t size, uint8_t **at) {
    const uint64_t kept = sizeof(struct cc_event_header) + CC_LOG_END_SIZE;
    if (log->used > log->area.size || size > UINT32_MAX || log->area.size - log->used < kept ||
        log->area.size - log->used - kept < size)
        return TDF_E_LOG_FULL;
    *at = log->area.data + log->used;
    if (log->pending != 0 && tdf_inside(log->area.size, log->used, log->pending))
        memset(*at, CC_LOG_FILL, log->pending); /* it must not show behind a shorter one */
    log->pending = 0;
    return TDF_OK;
}

/* Begins an event with `size` bytes of data, digest over `data`; `body` is where its data goes. */
static status_t begin_event(struct log *log, uint32_t rtmr, uint32_t type, uint64_t size, const struct span *data,
                            struct digest *digest, uint8_t **body) {
    struct cc_event_header head;
    uint8_t *at;
    status_t status = make_room(log, size, &at);
    if (status != TDF_OK)
        return status;
    head.mr_index = rtmr + 1; /* 0 is MRTD, UEFI specification, EFI_CC_MR_INDEX */
    head.type = type;
    head.digest_count = 1;
    head.algorithm_id = CC_ALG_SHA384;
    sha384(data, head.digest);
    head.size = (uint32_t)size;
    memcpy(at, &head, sizeof head);
    memcpy(digest->bytes, head.digest, sizeof digest->bytes);
    log->pending = sizeof head + size;
    *body = at + sizeof head;
    return TDF_OK;
}

/* An event up to its data, which `body` is for. */
static status_t begin_config(struct log *log, uint32_t rtmr, const struct span *name, const struct span *data,
                             struct digest *out, uint8_t **body) {
    struct cc_platform_config config;
    if (data->size > UINT32_MAX - sizeof config)
        return TDF_E_LOG_FULL;
    memset(&config, 0, sizeof config);
    memcpy(config.descriptor, name->data, name->size < CC_DESCRIPTOR_SIZE ? name->size : CC_DESCRIPTOR_SIZE);
    config.length = (uint32_t)data->size;
    status_t status = begin_event(log, rtmr, EV_PLATFORM_CONFIG_FLAGS, sizeof config + data->size, data, out, body);
    if (status != TDF_OK)
        return status;
    memcpy(*body, &config, sizeof config);
    *body += sizeof config;
    return TDF_OK;
}

status_t log_platform_config(struct log *log, uint32_t rtmr, const struct span *name, const struct span *data,
                             struct digest *out) {
    uint8_t *body;
    status_t status = begin_config(log, rtmr, name, data, out, &body);
    if (status == TDF_OK)
        memcpy(body, data->data, data->size);
    return status;
}

status_t log_blob(struct log *log, uint32_t rtmr, const struct span *name, const struct span *data,
                  struct digest *out) {
    struct cc_blob2_range range = {tdf_gpa(data->data), data->size};
    uint8_t *body;
    uint64_t name_size = name->size < NAME_MAX ? name->size : NAME_MAX;
    status_t status = begin_event(log, rtmr, EV_EFI_PLATFORM_FIRMWARE_BLOB2, 1 + name_size + 1 + sizeof range, data,
                                  out, &body);
    if (status != TDF_OK)
        return status;
    *body++ = (uint8_t)(name_size + 1);
    memcpy(body, name->data, name_size);
    body[name_size] = 0;
    memcpy(body + name_size + 1, &range, sizeof range);
    return TDF_OK;
}

status_t log_number(struct log *log, uint32_t rtmr, const struct span *name, uint64_t value, struct digest *out) {
    uint8_t bytes[sizeof value];
    const struct span data = {bytes, sizeof bytes};
    memcpy(bytes, &value, sizeof value); /* x86 keeps the low byte first */
    return log_platform_config(log, rtmr, name, &data, out);
}

status_t log_cpus(struct log *log, uint32_t rtmr, const struct span *name, const struct cpus *cpus,
                  struct digest *out) {
    const uint64_t before = sizeof(struct cc_event_header) + sizeof(struct cc_platform_config);
    const uint32_t count = (uint32_t)(cpus->ids.size / sizeof count);
    uint8_t *at, *body;
    if (cpus->ids.size > TDF_MAX_CPUS * sizeof count)
        return TDF_E_CPUS_TOO_MANY;
    struct span list = {0, sizeof count * (1 + (uint64_t)count)};
    status_t status = make_room(log, sizeof(struct cc_platform_config) + list.size, &at);
    if (status != TDF_OK)
        return status;
    /* Written where the event will have it: the stack has no room for a list of this length. */
    list.data = at + before;
    memcpy(list.data, &count, sizeof count);
    memcpy(list.data + sizeof count, cpus->ids.data, list.size - sizeof count);
    return begin_config(log, rtmr, name, &list, out, &body);
}

status_t log_separator(struct log *log, uint32_t rtmr, struct digest *out) {
    uint8_t value[sizeof(uint32_t)] = {EV_SEPARATOR_VALUE_OK};
    const struct span data = {value, sizeof value};
    uint8_t *body;
    status_t status = begin_event(log, rtmr, EV_SEPARATOR, sizeof value, &data, out, &body);
    if (status == TDF_OK)
        memcpy(body, value, sizeof value);
    return status;
}

void log_commit(struct log *log) {
    if (tdf_inside(log->area.size, log->used, log->pending))
        log->used += log->pending;
    log->pending = 0;
}
