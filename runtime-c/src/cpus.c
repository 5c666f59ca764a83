/* Which CPUs does the TD have? The APIC ids that its vCPUs told, checked, in the order of the MADT: the boot CPU first,
 * for Linux takes the first entry for it, then ascending, so that the order in which a VMM made its vCPUs means nothing.
 *
 * Source: ACPI specification 6.5, 5.2.12; SDM volume 3, 11.12.9; Linux arch/x86/kernel/cpu/topology.c. */
#include "formats.h"
#include "primitives.h"

status_t collect_cpus(struct span *slots, const struct vp_info *td, struct cpus *out) {
    const uint32_t count = td->num_vcpus;
    uint32_t *ids = (uint32_t *)(void *)slots->data;
    if (count == 0 || !tdf_inside(slots->size, 0, (uint64_t)count * sizeof ids[0]))
        return TDF_E_CPUS_MISMATCH;
    for (uint32_t i = 0; i < count; i++)
        PROVE_LOOP((i, __CPROVER_object_whole(ids)), i <= count, count - i) {
        uint32_t id = ids[i] - 1; /* a slot holds id + 1 */
        if (id == APIC_BROADCAST_ID || (i > 0 && id == ids[0]))
            return TDF_E_CPUS_MISMATCH;
        uint32_t at = i;
        for (; at > 1 && ids[at - 1] > id; at--)
            PROVE_LOOP((at, __CPROVER_object_whole(ids)), at <= i, at)
            ids[at] = ids[at - 1];
        if (at > 1 && ids[at - 1] == id)
            return TDF_E_CPUS_MISMATCH;
        ids[at] = id;
    }
    out->wait = td->tdx;
    out->reserved = 0;
    out->ids.data = slots->data;
    out->ids.size = (uint64_t)count * sizeof ids[0];
    return TDF_OK;
}

/* Ids are numbered by package, core and thread, each in as many bits as it needs: SDM volume 3, 9.9.3.2. */
void ordinary_cpus(const struct topology *topology, struct span *slots) {
    const uint32_t threads = topology->threads ? topology->threads : 1;
    const uint32_t per_package = topology->per_package ? topology->per_package : threads;
    const uint64_t count = slots->size / sizeof(uint32_t);
    for (uint64_t i = 0; i < count; i++)
        PROVE_LOOP((i, __CPROVER_object_whole(slots->data)), i <= count, count - i) {
        const uint32_t cpu = (uint32_t)i;
        const uint32_t id = cpu / per_package << (topology->package_bits & 31) |
                            cpu % per_package / threads << (topology->thread_bits & 31) | cpu % threads;
        const uint32_t told = (topology->threads ? id : cpu) + 1;
        memcpy(slots->data + i * sizeof told, &told, sizeof told);
    }
}
