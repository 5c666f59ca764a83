/* Does the list of CPUs stay in its slots, and is it sorted in finite time? */
#include "../src/cpus.c"
#include "model.h"

void prove_cpus(void) {
    struct span slots = any_span(BOUND);
    struct vp_info td;
    struct cpus out;
    collect_cpus(&slots, &td, &out);
}

void prove_ordinary_cpus(void) {
    struct span slots = any_span(BOUND);
    struct topology topology;
    ordinary_cpus(&topology, &slots);
}
