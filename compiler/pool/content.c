#include "compiler/pool/content.h"

#include "format/bytes.h"

static const char domain[] = "hilora adapter content 1"; /* with its NUL */

void hlc_content_begin(hlf_sha256 *hash) {
    hlf_sha256_init(hash);
    hlf_sha256_update(hash, domain, sizeof domain);
}

void hlc_content_add(hlf_sha256 *hash, const hlc_content_entry *entry) {
    uint8_t head[48] = {0};
    hlf_store_u64(head, entry->module_length);
    hlf_store_u32(head + 8, entry->kind);
    hlf_store_u32(head + 12, entry->rank);
    hlf_store_u64(head + 16, entry->d_in);
    hlf_store_u64(head + 24, entry->d_out);
    hlf_store_f64(head + 32, entry->scale);
    hlf_store_u32(head + 40, (uint32_t)entry->dtype_a);
    hlf_store_u32(head + 44, (uint32_t)entry->dtype_b);
    hlf_sha256_update(hash, head, sizeof head);
    hlf_sha256_update(hash, entry->module, entry->module_length);
    hlf_sha256_update(hash, entry->sha256_a, 32);
    hlf_sha256_update(hash, entry->sha256_b, 32);
    if (entry->sha256_e) {
        hlf_sha256_update(hash, entry->sha256_e, 32);
    }
}
