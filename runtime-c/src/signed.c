/* Is a payload signed with the key of the trust anchor?
 *
 * The framing of td-shim (td-shim/src/secure_boot.rs at 125eeab): header, payload, key, signature; header and payload are
 * what is signed. What follows the signature belongs to nobody. */
#include "formats.h"
#include "primitives.h"
#include "sha384.h"
#include "signature.h"

/* Bytes of a signature: of R and S, which are as long as X and Y; of a number below the modulus. */
#define ECDSA_SIZE sizeof(struct ecdsa_p384_key)
#define RSA_SIZE sizeof(((struct rsa_3072_key *)0)->modulus)

/* The header of a file whose header and payload lie in the region, with at least one byte of payload. */
static int read_header(const struct span *region, struct signed_payload_header *head) {
    static const uint8_t type[] = GUID_SIGNED_PAYLOAD;
    return tdf_read(region, 0, head, sizeof *head) && memcmp(head->type, type, sizeof type) == 0 &&
           head->length > sizeof *head && tdf_inside(region->size, 0, head->length);
}

status_t signed_payload(const struct span *region, struct span *out) {
    struct signed_payload_header head;
    if (!read_header(region, &head))
        return TDF_E_PAYLOAD_NOT_SIGNED;
    out->data = region->data + sizeof head;
    out->size = head.length - sizeof head;
    return TDF_OK;
}

status_t signed_svn(const struct span *region, uint64_t *out) {
    struct signed_payload_header head;
    if (!read_header(region, &head))
        return TDF_E_PAYLOAD_NOT_SIGNED;
    *out = head.payload_svn;
    return TDF_OK;
}

status_t verify_signed(const struct span *payload, const struct span *region, const struct anchor *anchor,
                       uint64_t minimum_svn) {
    struct signed_payload_header head;
    uint8_t digest[SHA384_SIZE];
    if (!read_header(region, &head) || payload->data != region->data + sizeof head ||
        payload->size != head.length - sizeof head)
        return TDF_E_PAYLOAD_NOT_SIGNED;
    const int is_rsa = head.algorithm == SIGNED_RSA_3072_PSS;
    if (!is_rsa && head.algorithm != SIGNED_ECDSA_P384)
        return TDF_E_PAYLOAD_NOT_SIGNED;
    const struct span covered = {region->data, head.length};
    const struct span key = {region->data + head.length, is_rsa ? sizeof(struct rsa_3072_key) : ECDSA_SIZE};
    const uint64_t size = is_rsa ? RSA_SIZE : ECDSA_SIZE;
    if (!tdf_inside(region->size, head.length, key.size + size))
        return TDF_E_PAYLOAD_NOT_SIGNED;
    sha384(&key, digest);
    if (memcmp(digest, anchor->key.bytes, sizeof digest) != 0)
        return TDF_E_PAYLOAD_OTHER_KEY;
    sha384(&covered, digest);
    const uint8_t *signature = key.data + key.size;
    if (!(is_rsa ? rsa_pss_verify(key.data, key.data + RSA_SIZE, signature, RSA_SIZE / 8, digest)
                 : p384_verify(key.data, digest, signature)))
        return TDF_E_PAYLOAD_WRONGLY_SIGNED;
    return head.payload_svn >= minimum_svn ? TDF_OK : TDF_E_PAYLOAD_TOO_OLD;
}
