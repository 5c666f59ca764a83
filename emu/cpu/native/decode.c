/* How long is an x86 instruction, and may the engine execute it by itself? */
#include "core.h"

/* One bit per opcode: does a ModRM byte follow? (Intel SDM volume 2, appendix A, one-byte and 0F maps) */
static const uint16_t modrm_one[16] = {
    0x0F0F, 0x0F0F, 0x0F0F, 0x0F0F, 0x0000, 0x0000, 0x0A0C, 0x0000,
    0xFFFF, 0x0000, 0x0000, 0x0000, 0x00C3 | 0x0030, 0xFF0F, 0x0000, 0xC0C0,
};

static int modrm_two(uint8_t op) {
    if (op >= 0x30 && op <= 0x37)
        return 0;
    if (op >= 0x80 && op <= 0x8F)
        return 0;
    if (op >= 0xC8 && op <= 0xCF)
        return 0;
    switch (op) {
    case 0x04: case 0x05: case 0x06: case 0x07: case 0x08: case 0x09: case 0x0A: case 0x0B: case 0x0C:
    case 0x0E: case 0x77: case 0xA0: case 0xA1: case 0xA2: case 0xA8: case 0xA9: case 0xAA:
        return 0;
    }
    return 1;
}

static int imm8_two(uint8_t op) {
    switch (op) {
    case 0x0F: case 0x70: case 0x71: case 0x72: case 0x73: case 0xA4: case 0xAC: case 0xBA: case 0xC2:
    case 0xC4: case 0xC5: case 0xC6:
        return 1;
    }
    return 0;
}

/* Immediate bytes after opcode (and ModRM) in the one-byte map. z is the size of an Iz operand. */
static int imm_one(uint8_t op, uint8_t modrm, int z, int wide, int address_bytes, int mode) {
    if (op < 0x40)
        return (op & 7) == 4 ? 1 : (op & 7) == 5 ? z : 0;
    if (op >= 0x70 && op <= 0x7F)
        return 1;
    if (op >= 0xB0 && op <= 0xB7)
        return 1;
    if (op >= 0xB8 && op <= 0xBF)
        return wide ? 8 : z;
    if (op >= 0xE0 && op <= 0xE7)
        return 1;
    switch (op) {
    case 0x6A: case 0x6B: case 0x80: case 0x82: case 0x83: case 0xA8: case 0xC0: case 0xC1: case 0xC6:
    case 0xCD: case 0xD4: case 0xD5: case 0xEB:
        return 1;
    case 0x68: case 0x69: case 0x81: case 0xA9: case 0xC7: case 0xE8: case 0xE9:
        return z;
    case 0xA0: case 0xA1: case 0xA2: case 0xA3:
        return address_bytes;
    case 0xC2: case 0xCA:
        return 2;
    case 0xC8:
        return 3;
    case 0x9A: case 0xEA:
        return mode == 64 ? 0 : z + 2;
    case 0xF6:
        return (modrm & 0x30) == 0 ? 1 : 0;
    case 0xF7:
        return (modrm & 0x30) == 0 ? z : 0;
    }
    return 0;
}

int td_decode(const uint8_t *code, uint32_t available, int mode, insn *out) {
    uint32_t p = 0, limit = available < 15 ? available : 15;
    int opsize = 0, addrsize = 0, rex = 0, vex = 0;
    memset(out, 0, sizeof *out);
    for (; p < limit; p++) {
        uint8_t b = code[p];
        if (b == 0x66) {
            opsize = 1;
            rex = 0;
        }
        else if (b == 0x67) {
            addrsize = 1;
            rex = 0;
        }
        else if (b == 0xF2 || b == 0xF3) {
            out->rep = b;
            rex = 0;
        }
        else if (b == 0xF0 || b == 0x2E || b == 0x36 || b == 0x3E || b == 0x26 || b == 0x64 || b == 0x65)
            rex = 0;
        else if (mode == 64 && (b & 0xF0) == 0x40)
            rex = b;
        else
            break;
    }
    if (p >= limit)
        return 0;
    out->prefix_len = (uint8_t)p;
    out->opsize = (uint8_t)opsize;
    uint8_t op = code[p++];
    int map = 0;
    int follows_reg = p < limit && (mode == 64 || (code[p] & 0xC0) == 0xC0);
    if ((op == 0xC5 || op == 0xC4 || op == 0x62) && follows_reg && p < limit) {
        vex = op;
        if (op == 0xC5) {
            map = 1;
            p += 1;
        } else if (op == 0xC4) {
            map = code[p] & 0x1F;
            p += 2;
        } else {
            map = code[p] & 7;
            p += 3;
        }
        if (p >= limit)
            return 0;
        op = code[p++];
    } else if (op == 0x0F) {
        if (p >= limit)
            return 0;
        op = code[p++];
        map = 1;
        if (op == 0x38 || op == 0x3A) {
            map = op == 0x38 ? 2 : 3;
            if (p >= limit)
                return 0;
            op = code[p++];
        }
    }
    out->opcode = op;
    out->map = (uint8_t)map;
    out->rex = (uint8_t)rex;
    out->vex = (uint8_t)vex;
    int has = map == 0 ? (modrm_one[op >> 4] >> (op & 15)) & 1 : map == 1 ? modrm_two(op) : 1;
    int memory_bytes = 0;
    if (has) {
        if (p >= limit)
            return 0;
        out->modrm_at = (uint8_t)p;
        uint8_t m = code[p++];
        out->modrm = m;
        out->has_modrm = 1;
        int mod = m >> 6, rm = m & 7;
        int control = !vex && map == 1 && op >= 0x20 && op <= 0x23; /* MOV CRn/DRn: mod is ignored */
        if (mod != 3 && !control) {
            if (mode == 16 ? !addrsize : (mode == 32 && addrsize)) {
                memory_bytes = mod == 1 ? 1 : mod == 2 || rm == 6 ? 2 : 0;
                if (mod == 0 && rm != 6)
                    memory_bytes = 0;
            } else {
                memory_bytes = mod == 1 ? 1 : mod == 2 ? 4 : 0;
                if (rm == 4) {
                    if (p >= limit)
                        return 0;
                    if (mod == 0 && (code[p] & 7) == 5)
                        memory_bytes = 4;
                    p++;
                } else if (mod == 0 && rm == 5) {
                    memory_bytes = 4;
                }
            }
        }
    }
    p += (uint32_t)memory_bytes;
    int wide = (rex & 8) != 0;
    int small = mode == 16 ? !opsize : opsize;
    int z = small && !wide ? 2 : 4;
    int address_bytes = mode == 64 ? (addrsize ? 4 : 8) : (mode == 16) != addrsize ? 2 : 4;
    if (map == 0) {
        int near = op == 0xE8 || op == 0xE9;
        p += (uint32_t)imm_one(op, out->modrm, near && mode == 64 ? 4 : z, wide, address_bytes, mode);
    } else if (map == 1) {
        if (!vex && op >= 0x80 && op <= 0x8F)
            p += mode == 64 ? 4 : (uint32_t)z;
        else if (imm8_two(op))
            p += 1;
    } else if (map == 3) {
        p += 1;
    }
    if (p > limit)
        return 0;
    out->length = (uint8_t)p;
    return (int)p;
}

int td_is_rep_string(const insn *i) {
    if (!i->rep || i->map != 0)
        return 0;
    return (i->opcode >= 0xA4 && i->opcode <= 0xA7) || (i->opcode >= 0xAA && i->opcode <= 0xAF);
}

int td_classify(const insn *i, const uint8_t *code, int mode) {
    (void)code;
    uint8_t op = i->opcode, reg = (i->modrm >> 3) & 7;
    if (i->vex) { /* of these the emulated CPU has BMI only, and the engine would execute the others as SSE */
        int bmi = i->vex != 0x62 && (i->map == 3 ? op == 0xF0 : i->map == 2 && op >= 0xF2 && op <= 0xF7 && op != 0xF4);
        return bmi ? TD_INSN_NONE : TD_INSN_UD;
    }
    if (i->map == 0) {
        switch (op) {
        case 0x6C: case 0x6D: return TD_INSN_INS;
        case 0x6E: case 0x6F: return TD_INSN_OUTS;
        case 0xE4: case 0xE5: case 0xEC: case 0xED: return TD_INSN_IN;
        case 0xE6: case 0xE7: case 0xEE: case 0xEF: return TD_INSN_OUT;
        case 0xF4: return TD_INSN_HLT;
        }
        return TD_INSN_NONE;
    }
    if (i->map != 1)
        return TD_INSN_NONE;
    switch (op) {
    case 0x01:
        switch (i->modrm) {
        case 0xC0: case 0xC2: case 0xC3: case 0xC4: case 0xC5: case 0xCF: case 0xD4: case 0xD7: return TD_INSN_UD;
        case 0xC1: return TD_INSN_VMCALL;
        case 0xC8: return TD_INSN_MONITOR;
        case 0xC9: return TD_INSN_MWAIT;
        case 0xCC: return i->opsize && mode ? TD_INSN_TDCALL : TD_INSN_UD;
        case 0xD0: return TD_INSN_XGETBV;
        case 0xD1: return TD_INSN_XSETBV;
        case 0xF9: return TD_INSN_RDTSCP;
        }
        if (reg == 4 || (reg < 2 && (i->modrm & 0xC0) != 0xC0))
            return TD_INSN_STORE_TABLE;
        return reg == 6 ? TD_INSN_LMSW : TD_INSN_NONE;
    case 0x00: return reg < 2 ? TD_INSN_STORE_TABLE : TD_INSN_NONE;
    case 0x20: return reg == 0 && i->rex & 4 ? TD_INSN_MOV_CR8 : TD_INSN_NONE;
    case 0x05: return TD_INSN_SYSCALL;
    case 0x08: return TD_INSN_INVD;
    case 0x09: return TD_INSN_WBINVD;
    case 0x22:
        if (reg == 0)
            return i->rex & 4 ? TD_INSN_MOV_CR8 : TD_INSN_MOV_CR0;
        return reg == 4 && !(i->rex & 4) ? TD_INSN_MOV_CR4 : TD_INSN_NONE;
    case 0x30: return TD_INSN_WRMSR;
    case 0x31: return TD_INSN_RDTSC;
    case 0x32: return TD_INSN_RDMSR;
    case 0x33: return TD_INSN_RDPMC;
    case 0x37: case 0x78: case 0x79: case 0xAA: return TD_INSN_UD;
    case 0xA2: return TD_INSN_CPUID;
    case 0xAE: /* TPAUSE, UMONITOR, UMWAIT with CPUID.WAITPKG 0; without a prefix it is MFENCE */
        return (i->modrm & 0xC0) == 0xC0 && reg == 6 && (i->rep || i->opsize) ? TD_INSN_UD : TD_INSN_NONE;
    case 0xC7:
        if ((i->modrm & 0xC0) == 0xC0)
            return reg == 6 ? TD_INSN_RDRAND : reg == 7 ? TD_INSN_RDSEED : TD_INSN_NONE;
        return reg == 6 ? TD_INSN_UD : TD_INSN_NONE;
    }
    return TD_INSN_NONE;
}

int td_insn_length(const uint8_t *code, uint32_t available, int mode) {
    insn i;
    return td_decode(code, available, mode, &i);
}

int td_insn_kind(const uint8_t *code, uint32_t length, int mode) {
    insn i;
    return td_decode(code, length, mode, &i) ? td_classify(&i, code, mode) : TD_INSN_NONE;
}

/* Linear address of the ModRM memory operand in 64-bit mode; 0 when there is none. */
static uint64_t operand(const insn *i, const uint8_t *code, const td_regs *r, uint64_t segment_base) {
    uint32_t mod = i->modrm >> 6, rm = i->modrm & 7;
    if (!i->has_modrm || mod == 3 || !i->length)
        return 0;
    const uint8_t *p = code + i->modrm_at + 1;
    uint64_t address = 0;
    int wide_displacement = mod == 2;
    if (rm == 4) {
        uint8_t sib = *p++;
        uint32_t base = sib & 7, index = ((sib >> 3) & 7) | (i->rex & 2) << 2;
        if (index != 4)
            address += r->gpr[index] << (sib >> 6);
        if (base == 5 && mod == 0)
            wide_displacement = 1;
        else
            address += r->gpr[base | (i->rex & 1) << 3];
    } else if (rm == 5 && mod == 0) {
        wide_displacement = 1;
        address = r->rip + i->length;
    } else {
        address = r->gpr[rm | (i->rex & 1) << 3];
    }
    int32_t displacement = 0;
    if (wide_displacement)
        memcpy(&displacement, p, 4);
    else if (mod == 1)
        displacement = (int8_t)*p;
    return address + (uint64_t)(int64_t)displacement + segment_base;
}

uint64_t td_touched(const uint8_t *code, uint32_t available, const td_regs *r, uint64_t fs, uint64_t gs, uint64_t page) {
    insn i;
    uint64_t base = 0;
    if (r->mode != 64 || !td_decode(code, available, 64, &i))
        return page;
    for (int k = 0; k < i.prefix_len; k++)
        base = code[k] == 0x64 ? fs : code[k] == 0x65 ? gs : base;
    uint64_t candidates[] = {operand(&i, code, r, base), r->gpr[6] + base, r->gpr[7], r->gpr[4], r->gpr[4] - 8};
    for (size_t k = 0; k < sizeof candidates / sizeof *candidates; k++)
        if ((candidates[k] & ~0xFFFULL) == page)
            return candidates[k];
    return page;
}
