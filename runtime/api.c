#include <hilora/api.h>
#include <hilora/hilora.h>

static const hl_api version_1 = {
    .struct_size = sizeof(hl_api),
    .api_version = 1,
    .version = hl_version,
    .status_name = hl_status_name,
    .diag_clear = hl_diag_clear,
    .pool_open = hl_pool_open,
    .pool_open_memory = hl_pool_open_memory,
    .pool_close = hl_pool_close,
    .pool_info = hl_pool_info,
    .pool_measure = hl_pool_measure,
    .adapter_at = hl_adapter_at,
    .adapter_find = hl_adapter_find,
    .module_at = hl_module_at,
    .module_find = hl_module_find,
    .entry_at = hl_entry_at,
    .entry_find = hl_entry_find,
    .rival_at = hl_rival_at,
    .tensor_read = hl_tensor_read,
    .text_read = hl_text_read,
    .pool_verify = hl_pool_verify,
    .route_compute = hl_route_compute,
    .route_compute_batch = hl_route_compute_batch,
    .route_free = hl_route_free,
    .score_compute = hl_score_compute,
    .route_info = hl_route_info,
    .route_item_at = hl_route_item_at,
    .route_module_rocs = hl_route_module_rocs,
    .route_digest = hl_route_digest,
    .route_fate_at = hl_route_fate_at,
    .session_create = hl_session_create,
    .session_destroy = hl_session_destroy,
    .session_prepare = hl_session_prepare,
    .session_info = hl_session_info,
    .session_apply = hl_session_apply,
    .session_rows = hl_session_rows,
    .gate_select = hl_gate_select,
    .blend = hl_blend,
    .lora_free = hl_lora_free,
    .lora_at = hl_lora_at,
};

const hl_api *hl_api_get(uint32_t version) {
    return version == 1 ? &version_1 : NULL;
}
