// Every allocation fails once: a status, nothing leaked, nothing left behind.
#include <cstdlib>

#include "tests/api/api_fixture.h"

namespace {

struct Budget {
    size_t left;
    size_t live = 0;
};

void *allocate(void *user, size_t size, size_t alignment) {
    Budget *budget = static_cast<Budget *>(user);
    if (budget->left == 0) {
        return nullptr;
    }
    budget->left--;
    budget->live++;
    void *memory = nullptr;
    return posix_memalign(&memory, alignment, size) == 0 ? memory : nullptr;
}

void release(void *user, void *memory) {
    EXPECT_NE(memory, nullptr);
    static_cast<Budget *>(user)->live--;
    std::free(memory);
}

// Runs a whole life of a pool; answers whether everything succeeded.
bool live(const Bytes &bytes, size_t allocations, hl_select select) {
    Budget budget{allocations};
    const hl_allocator allocator = {allocate, release, &budget};
    auto options = sized<hl_pool_options>();
    options.allocator = &allocator;
    hl_pool *pool = nullptr;
    hl_diag diag = clear_diag();
    hl_status status = hl_pool_open_memory(bytes.pool().bytes, bytes.size(), &options, &pool, &diag);
    if (status == HL_OK) {
        auto route_options = sized<hl_route_options>();
        const uint32_t names[] = {2, 0};
        route_options.select = select;
        route_options.keep_all = 1;
        if (select == HL_SELECT_EXPLICIT) {
            route_options.adapters = names;
            route_options.adapter_count = 2;
        }
        std::vector<float> z = bytes.prompt(1);
        z.insert(z.end(), z.begin(), z.end());
        const hl_embeddings two = {z.data(), HL_DTYPE_F32, 2, bytes.spec.dim, 0};
        hl_route *routes[2];
        status = hl_route_compute_batch(pool, &two, &route_options, routes, &diag);
        EXPECT_EQ(routes[0] != nullptr, status == HL_OK);
        EXPECT_EQ(routes[1] != nullptr, status == HL_OK);
        hl_route_free(routes[0]);
        hl_route_free(routes[1]);
    }
    std::vector<double> scores(bytes.spec.adapters);
    if (status == HL_OK) {
        status = hl_score_compute(pool, bytes.prompt(1).data(), bytes.spec.dim, scores.data(), scores.size(), &diag);
    }
    if (status == HL_OK) {
        status = hl_pool_verify(pool, nullptr, &diag);
    }
    hl_pool_close(pool);
    EXPECT_EQ(budget.live, 0u) << "after " << allocations;
    EXPECT_TRUE(status == HL_OK || status == HL_ERR_MEMORY) << status << " " << diag.message;
    EXPECT_EQ(diag.status, status);
    return status == HL_OK;
}

TEST(Allocation, AnyFailureIsAStatus) {
    hlt_pool_spec spec = small_spec();
    spec.whiten = true;
    Bytes bytes(spec);
    for (hl_select select : {HL_SELECT_POSTERIOR, HL_SELECT_COSINE, HL_SELECT_EXPLICIT}) {
        size_t n = 0;
        while (!live(bytes, n, select)) {
            ASSERT_LT(++n, 200u);
        }
        EXPECT_GT(n, 10u);
    }
}

TEST(Allocation, AnAllocatorNeedsBothFunctions) {
    Bytes bytes(small_spec());
    const hl_allocator half = {allocate, nullptr, nullptr};
    auto options = sized<hl_pool_options>();
    options.allocator = &half;
    hl_pool *pool = nullptr;
    EXPECT_EQ(hl_pool_open_memory(bytes.data(), bytes.size(), &options, &pool, nullptr), HL_ERR_ARGUMENT);
}

// Nothing of the size that a pool claims is asked for before the claim has been held against the limit.
TEST(Allocation, ABlendOverTheLimitAsksForNoMemory) {
    struct Largest {
        bool armed = false;
        size_t refused = 0;
    } largest;
    const hl_allocator allocator = {[](void *user, size_t size, size_t alignment) -> void * {
                                        auto *self = static_cast<Largest *>(user);
                                        if (self->armed && size > 16384) {
                                            self->refused++;
                                            return nullptr;
                                        }
                                        void *memory = nullptr;
                                        return posix_memalign(&memory, alignment, size) == 0 ? memory : nullptr;
                                    },
                                    [](void *, void *memory) { std::free(memory); }, &largest};
    hlt_pool_spec spec = small_spec();
    spec.min_rank = spec.max_rank = 8;
    spec.min_width = spec.max_width = 5000;
    Bytes bytes(spec);
    auto options = sized<hl_pool_options>();
    options.allocator = &allocator;
    options.max_chunk_bytes = 8192;
    PoolPtr pool = bytes.open(&options);
    RoutePtr route = route_or_fail(pool.get(), bytes.prompt(1));
    hl_session *session = nullptr;
    ASSERT_EQ(hl_session_create(pool.get(), nullptr, &session, nullptr), HL_OK);
    largest.armed = true;
    hl_lora *lora = nullptr;
    EXPECT_EQ(hl_blend(session, route.get(), &lora, nullptr), HL_ERR_LIMIT);
    EXPECT_EQ(lora, nullptr);
    EXPECT_EQ(largest.refused, 0u);
    hl_session_destroy(session);
}

} // namespace
