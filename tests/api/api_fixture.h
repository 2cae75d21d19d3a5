// Shared by the API tests: pools that close themselves, and routes as plain values.
#ifndef HILORA_TESTS_API_FIXTURE_H
#define HILORA_TESTS_API_FIXTURE_H

#include <cmath>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <hilora/hilora.h>

#include "tests/support/pool_builder.h"

struct ClosePool {
    void operator()(hl_pool *pool) const {
        hl_pool_close(pool);
    }
};
struct FreeRoute {
    void operator()(hl_route *route) const {
        hl_route_free(route);
    }
};
using PoolPtr = std::unique_ptr<hl_pool, ClosePool>;
using RoutePtr = std::unique_ptr<hl_route, FreeRoute>;

// A structure of the library with its size set.
template <typename T> T sized() {
    T value;
    std::memset(static_cast<void *>(&value), 0, sizeof value);
    value.struct_size = sizeof value;
    return value;
}

// A number that an enumeration of C does not have, as a careless caller may pass it.
template <typename T> void set_raw(T *field, int value) {
    static_assert(sizeof *field == sizeof value, "enumerations are ints");
    std::memcpy(static_cast<void *>(field), &value, sizeof value);
}

inline hl_diag clear_diag() {
    hl_diag diag;
    hl_diag_clear(&diag);
    return diag;
}

inline std::string text(hl_string string) {
    return std::string(string.data, string.size);
}

// The bytes of a flat pool.
class Bytes {
  public:
    const hlt_pool_spec spec;

    explicit Bytes(const hlt_pool_spec &made_from) : spec(made_from), pool_(hlt_pool_build(&made_from)) {
    }
    ~Bytes() {
        hlt_pool_free(&pool_);
    }
    Bytes(const Bytes &) = delete;
    Bytes &operator=(const Bytes &) = delete;

    uint8_t *data() {
        return pool_.bytes;
    }
    size_t size() const {
        return pool_.size;
    }
    const hlt_pool &pool() const {
        return pool_;
    }
    std::vector<float> prompt(uint64_t seed) const {
        std::vector<float> z(spec.dim);
        hlt_embedding(&spec, &pool_, seed, z.data());
        return z;
    }
    PoolPtr open(const hl_pool_options *options = nullptr) const {
        hl_pool *pool = nullptr;
        hl_diag diag = clear_diag();
        EXPECT_EQ(hl_pool_open_memory(pool_.bytes, pool_.size, options, &pool, &diag), HL_OK) << diag.message;
        return PoolPtr(pool);
    }

  private:
    hlt_pool pool_;
};

inline hlt_pool_spec small_spec() {
    hlt_pool_spec spec{};
    spec.seed = 7;
    spec.adapters = 6;
    spec.modules = 3;
    spec.min_rank = 1;
    spec.max_rank = 8;
    spec.min_width = 5;
    spec.max_width = 33;
    spec.dim = 20;
    spec.min_samples = 4;
    spec.max_samples = 9;
    spec.zstd = true;
    spec.svd = true;
    spec.mixed_dtypes = true;
    spec.rivals = 2;
    return spec;
}

// What a route decided, to compare.
struct Decision {
    std::vector<uint32_t> adapters, rocs, parts;
    std::vector<double> scores;
    bool familiar;
    std::vector<uint8_t> digest;

    bool operator==(const Decision &other) const {
        return adapters == other.adapters && rocs == other.rocs && parts == other.parts && familiar == other.familiar &&
               digest == other.digest && scores.size() == other.scores.size() &&
               std::memcmp(scores.data(), other.scores.data(), scores.size() * sizeof(double)) == 0;
    }
};

inline Decision decision_of(const hl_route *route) {
    auto view = sized<hl_route_view>();
    EXPECT_EQ(hl_route_info(route, &view), HL_OK);
    Decision decision{};
    decision.familiar = view.familiar != 0;
    decision.digest.assign(view.digest, view.digest + 16);
    for (uint32_t i = 0; i < view.count; i++) {
        auto item = sized<hl_route_item>();
        EXPECT_EQ(hl_route_item_at(route, i, &item), HL_OK);
        decision.adapters.push_back(item.adapter);
        decision.rocs.push_back(item.rocs);
        decision.parts.push_back(item.weight_256);
        decision.scores.push_back(item.score);
    }
    return decision;
}

inline RoutePtr route_or_fail(const hl_pool *pool, const std::vector<float> &z,
                              const hl_route_options *options = nullptr) {
    hl_route *route = nullptr;
    hl_diag diag = clear_diag();
    EXPECT_EQ(hl_route_compute(pool, z.data(), z.size(), options, &route, &diag), HL_OK) << diag.message;
    return RoutePtr(route);
}

#endif
