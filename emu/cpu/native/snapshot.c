/* How does a TD become bytes, and come back? CPU state and progress of a vCPU, and the pages that are not zero. */
#define _DEFAULT_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "core.h"

uint8_t *td_cpu_state(td_vcpu *v, uint64_t *size) {
    td_put_regs(v);
    uc_context_save(v->uc, v->context);
    *size = v->env_size;
    return v->env;
}

void td_get_progress(td_vcpu *v, td_progress *p) {
    memset(p, 0, sizeof *p);
    p->count = v->count;
    p->excluded = v->excluded;
    p->tsc_offset = v->tsc_offset;
    p->last_rep = v->last_rep;
    p->pass = v->pass;
    p->random = v->random;
    p->rep_continues = v->rep_continues;
    p->handoff_armed = v->handoff_armed;
    p->fault = v->fault;
    p->spins = v->spins;
    p->shadow = (uint16_t)v->shadow;
    p->paused = (uint16_t)v->paused;
}

void td_resume_from(td_vcpu *v, const uint8_t *state, const td_progress *p) {
    uc_context_save(v->uc, v->context);
    memcpy(v->env, state, v->env_size);
    uc_context_restore(v->uc, v->context);
    v->regs_loaded = 0;
    v->current = NULL;
    v->stopped = 0;
    v->exception = -1;
    v->count = p->count;
    v->excluded = p->excluded;
    v->tsc_offset = p->tsc_offset;
    v->last_rep = p->last_rep;
    v->pass = p->pass;
    v->random = p->random;
    v->rep_continues = p->rep_continues;
    v->handoff_armed = p->handoff_armed;
    v->fault = p->fault;
    v->spins = p->spins;
    v->shadow = p->shadow;
    v->paused = p->paused;
    td_forget_code(v);
}

static int is_zero(const uint8_t *page) {
    const uint64_t *word = (const uint64_t *)page;
    for (int i = 0; i < 512; i += 8)
        if (word[i] | word[i + 1] | word[i + 2] | word[i + 3] | word[i + 4] | word[i + 5] | word[i + 6] | word[i + 7])
            return 0;
    return 1;
}

uint64_t td_used_pages(const uint8_t *memory, uint64_t size, uint32_t *out, uint64_t max) {
    enum { CHUNK = 512 };
    uint64_t entries[CHUNK], n = 0;
    int file = open("/proc/self/pagemap", O_RDONLY); /* says what was ever touched; without it all is looked at */
    for (uint64_t first = 0; first < size >> 12; first += CHUNK) {
        uint64_t part = (size >> 12) - first < CHUNK ? (size >> 12) - first : CHUNK;
        ssize_t want = (ssize_t)(part * 8);
        int known = file >= 0 && pread(file, entries, (size_t)want, (off_t)((((uintptr_t)memory >> 12) + first) * 8)) == want;
        for (uint64_t i = 0; i < part; i++) {
            if (known && !(entries[i] >> 62))
                continue; /* neither present nor swapped out */
            if (is_zero(memory + ((first + i) << 12)))
                continue;
            if (n < max)
                out[n] = (uint32_t)(first + i);
            n++;
        }
    }
    if (file >= 0)
        close(file);
    return n;
}

void td_gather_pages(const uint8_t *memory, const uint32_t *pages, uint64_t n, uint8_t *out) {
    for (uint64_t i = 0; i < n; i++)
        memcpy(out + (i << 12), memory + ((uint64_t)pages[i] << 12), 4096);
}

void td_restore_pages(uint8_t *memory, uint64_t size, const uint32_t *pages, uint64_t n, const uint8_t *content) {
    uint64_t used = td_used_pages(memory, size, NULL, 0), at = 0;
    uint32_t *now = malloc((used + 1) * sizeof *now);
    if (!now)
        abort();
    td_used_pages(memory, size, now, used);
    for (uint64_t i = 0; i < used; i++) {
        while (at < n && pages[at] < now[i])
            at++;
        if (at == n || pages[at] != now[i])
            madvise(memory + ((uint64_t)now[i] << 12), 4096, MADV_DONTNEED);
    }
    free(now);
    for (at = 0; at < n; at++) {
        uint8_t *page = memory + ((uint64_t)pages[at] << 12);
        if (memcmp(page, content + (at << 12), 4096))
            memcpy(page, content + (at << 12), 4096);
    }
}
