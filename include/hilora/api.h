/* The plugin entry: one function that hands out all others. See hilora/hilora.h for the conventions.
 *
 * An engine that loads libhilora at run time (dlopen) looks up `hl_api_get` alone, asks for the version of the table
 * that it was built with, and calls through the table. A table keeps its version for ever: a later library appends
 * functions under a higher version number and still answers for the lower ones. docs/ENGINES.md shows the steps. */
#ifndef HILORA_API_H
#define HILORA_API_H

#include <stddef.h>
#include <stdint.h>

#include <hilora/pool.h>
#include <hilora/route.h>
#include <hilora/session.h>
#include <hilora/status.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The newest table of this header. */
#define HILORA_API_VERSION 1u

/* Every function of the library under its name without "hl_"; what each does stands beside its declaration. The
 * order is part of the ABI: functions are appended, never moved. */
typedef struct hl_api {
    size_t struct_size;   /* of the table of that version; members beyond it do not exist */
    uint32_t api_version; /* that was asked for */
    uint32_t reserved;    /* 0 */
    const char *(*version)(void);
    const char *(*status_name)(hl_status status);
    void (*diag_clear)(hl_diag *diag);
    hl_status (*pool_open)(const char *path, const hl_pool_options *options, hl_pool **out, hl_diag *diag);
    hl_status (*pool_open_memory)(const void *bytes, size_t size, const hl_pool_options *options, hl_pool **out,
                                  hl_diag *diag);
    void (*pool_close)(hl_pool *pool);
    hl_status (*pool_info)(const hl_pool *pool, hl_pool_view *view);
    hl_status (*pool_measure)(const hl_pool *pool, hl_pool_sizes *sizes);
    hl_status (*adapter_at)(const hl_pool *pool, uint32_t i, hl_adapter_view *view);
    uint32_t (*adapter_find)(const hl_pool *pool, const char *name, size_t size);
    hl_status (*module_at)(const hl_pool *pool, uint32_t i, hl_module_view *view);
    uint32_t (*module_find)(const hl_pool *pool, const char *name, size_t size);
    hl_status (*entry_at)(const hl_pool *pool, uint32_t adapter, uint32_t i, hl_entry_view *view);
    hl_status (*entry_find)(const hl_pool *pool, uint32_t adapter, uint32_t module, hl_entry_view *view);
    hl_status (*rival_at)(const hl_pool *pool, uint32_t adapter, uint32_t k, uint32_t *rival, double *distance,
                          hl_diag *diag);
    hl_status (*tensor_read)(const hl_pool *pool, uint32_t adapter, uint32_t module, hl_side side, hl_dtype dtype,
                             void *buffer, size_t size, hl_diag *diag);
    hl_status (*text_read)(const hl_pool *pool, uint32_t adapter, hl_text text, char *buffer, size_t size,
                           hl_diag *diag);
    hl_status (*pool_verify)(const hl_pool *pool, const hl_verify_options *options, hl_diag *diag);
    hl_status (*route_compute)(const hl_pool *pool, const float *z, size_t dim, const hl_route_options *options,
                               hl_route **out, hl_diag *diag);
    hl_status (*route_compute_batch)(const hl_pool *pool, const hl_embeddings *embeddings,
                                     const hl_route_options *options, hl_route **routes, hl_diag *diag);
    void (*route_free)(hl_route *route);
    hl_status (*score_compute)(const hl_pool *pool, const float *z, size_t dim, double *out, size_t count,
                               hl_diag *diag);
    hl_status (*route_info)(const hl_route *route, hl_route_view *view);
    hl_status (*route_item_at)(const hl_route *route, uint32_t i, hl_route_item *item);
    uint32_t (*route_module_rocs)(uint32_t rocs, uint32_t rank, uint32_t module_rank);
    void (*route_digest)(const hl_route *route, uint8_t out[16]);
    hl_status (*route_fate_at)(const hl_route *route, uint32_t adapter, hl_fate_view *view);
    hl_status (*session_create)(const hl_pool *pool, const hl_session_options *options, hl_session **out,
                                hl_diag *diag);
    void (*session_destroy)(hl_session *session);
    hl_status (*session_prepare)(hl_session *session, const hl_route *const *routes, size_t count, hl_diag *diag);
    hl_status (*session_info)(const hl_session *session, hl_session_view *view);
    hl_status (*session_apply)(hl_session *session, uint32_t module, size_t n_tokens, const void *x, size_t x_stride,
                               const uint32_t *route_of_token, void *y, size_t y_stride, hl_dtype dtype, hl_diag *diag);
    hl_status (*session_rows)(const hl_session *session, uint32_t route, uint32_t adapter, uint32_t module,
                              hl_rows_view *view, hl_diag *diag);
    void (*gate_select)(hl_gate gate, const float *u, const float *b_norm, uint32_t rank, uint32_t count,
                        uint32_t *active);
    hl_status (*blend)(hl_session *session, const hl_route *route, hl_lora **out, hl_diag *diag);
    void (*lora_free)(hl_lora *lora);
    hl_status (*lora_at)(const hl_lora *lora, uint32_t i, hl_lora_view *view);
} hl_api;

/* The table of a version, from 1 to HILORA_API_VERSION; NULL for one that this library does not know. Static storage,
 * the same pointer on every call; valid while the library is loaded. Any thread. */
HL_API const hl_api *hl_api_get(uint32_t version);

#ifdef __cplusplus
}
#endif
#endif
