// Sessions through the public API, as an engine uses them. The formula itself is held against PEFT and NumPy by
// tests/interop/test_apply.py and against float64 arithmetic by tests/unit/test_session.c.
#include <algorithm>
#include <cmath>
#include <random>

#include "tests/api/api_fixture.h"

namespace {

struct DestroySession {
    void operator()(hl_session *session) const {
        hl_session_destroy(session);
    }
};
struct FreeLora {
    void operator()(hl_lora *lora) const {
        hl_lora_free(lora);
    }
};
using SessionPtr = std::unique_ptr<hl_session, DestroySession>;
using LoraPtr = std::unique_ptr<hl_lora, FreeLora>;

SessionPtr session_of(const hl_pool *pool, const hl_session_options *options = nullptr) {
    hl_session *session = nullptr;
    hl_diag diag = clear_diag();
    EXPECT_EQ(hl_session_create(pool, options, &session, &diag), HL_OK) << diag.message;
    return SessionPtr(session);
}

void prepare(hl_session *session, const std::vector<const hl_route *> &routes) {
    hl_diag diag = clear_diag();
    ASSERT_EQ(hl_session_prepare(session, routes.data(), routes.size(), &diag), HL_OK) << diag.message;
}

hl_module_view module_of(const hl_pool *pool, uint32_t module) {
    auto view = sized<hl_module_view>();
    EXPECT_EQ(hl_module_at(pool, module, &view), HL_OK);
    return view;
}

std::vector<float> normals(size_t n, unsigned seed) {
    std::mt19937 generator(seed);
    std::normal_distribution<float> normal;
    std::vector<float> values(n);
    std::generate(values.begin(), values.end(), [&] { return normal(generator); });
    return values;
}

float half_to_float(uint16_t bits) { // IEEE 754 binary16, finite
    const int exponent = bits >> 10 & 31, mantissa = bits & 1023;
    const double magnitude = exponent ? std::ldexp(1024 + mantissa, exponent - 25) : std::ldexp(mantissa, -24);
    return static_cast<float>(bits & 0x8000 ? -magnitude : magnitude);
}

float element(const void *rows, hl_dtype dtype, size_t at) {
    return dtype == HL_DTYPE_F32 ? static_cast<const float *>(rows)[at]
                                 : half_to_float(static_cast<const uint16_t *>(rows)[at]);
}

// What an engine with kernels of its own does: rows and selection from the library, arithmetic of its own.
std::vector<double> by_hand(const hl_pool *pool, const hl_session *session, const hl_route *route, uint32_t module,
                            const std::vector<float> &x) {
    auto view = sized<hl_route_view>();
    EXPECT_EQ(hl_route_info(route, &view), HL_OK);
    std::vector<double> y(module_of(pool, module).d_out);
    for (uint32_t i = 0; i < view.count; i++) {
        auto item = sized<hl_route_item>();
        auto rows = sized<hl_rows_view>();
        EXPECT_EQ(hl_route_item_at(route, i, &item), HL_OK);
        if (hl_session_rows(session, 0, item.adapter, module, &rows, nullptr) == HL_ERR_NOT_FOUND) {
            continue;
        }
        std::vector<float> u(rows.rows);
        for (uint32_t j = 0; j < rows.rows; j++) {
            for (size_t c = 0; c < rows.d_in; c++) {
                u[j] += element(rows.a, rows.dtype, j * rows.a_stride + c) * x[c];
            }
            u[j] = std::ldexp(u[j], rows.a_exponent ? rows.a_exponent[j] : 0);
        }
        std::vector<uint32_t> active(rows.rocs);
        hl_gate_select(view.gate, u.data(), rows.b_norm, rows.rows, rows.rocs, active.data());
        for (uint32_t j : active) {
            const double weight = rows.scale * item.weight * std::ldexp(u[j], rows.b_exponent ? rows.b_exponent[j] : 0);
            for (size_t c = 0; c < rows.d_out; c++) {
                y[c] += weight * element(rows.b, rows.dtype, j * rows.b_stride + c);
            }
        }
    }
    return y;
}

TEST(Session, AnEngineCanDoTheSameByItself) {
    hlt_pool_spec spec = small_spec();
    spec.modules_per_adapter = 2;
    Bytes bytes(spec);
    PoolPtr pool = bytes.open();
    for (int rows = HL_ROWS_SOURCE; rows <= HL_ROWS_F16; rows++) {
        auto options = sized<hl_route_options>();
        options.rows = static_cast<hl_rows>(rows);
        options.gate = HL_GATE_CONTRIBUTION;
        options.gamma = 0.5;
        RoutePtr route = route_or_fail(pool.get(), bytes.prompt(2), &options);
        SessionPtr session = session_of(pool.get());
        prepare(session.get(), {route.get()});
        for (uint32_t m = 0; m < spec.modules; m++) {
            const hl_module_view module = module_of(pool.get(), m);
            const std::vector<float> x = normals(module.d_in, m);
            std::vector<float> y(module.d_out);
            ASSERT_EQ(hl_session_apply(session.get(), m, 1, x.data(), x.size(), nullptr, y.data(), y.size(),
                                       HL_DTYPE_F32, nullptr),
                      HL_OK);
            const std::vector<double> expected = by_hand(pool.get(), session.get(), route.get(), m, x);
            double error = 0, size = 0;
            for (size_t c = 0; c < y.size(); c++) {
                error += (y[c] - expected[c]) * (y[c] - expected[c]);
                size += expected[c] * expected[c];
            }
            EXPECT_LE(std::sqrt(error), 1e-5 * std::sqrt(size)) << m;
        }
    }
}

TEST(Session, RoutesMayBeFreedOnceTheyArePrepared) {
    Bytes bytes(small_spec());
    PoolPtr pool = bytes.open();
    SessionPtr session = session_of(pool.get());
    const hl_module_view module = module_of(pool.get(), 0);
    const std::vector<float> x = normals(module.d_in, 1);
    std::vector<float> before(module.d_out), after(module.d_out);
    {
        RoutePtr route = route_or_fail(pool.get(), bytes.prompt(3));
        prepare(session.get(), {route.get()});
        ASSERT_EQ(hl_session_apply(session.get(), 0, 1, x.data(), x.size(), nullptr, before.data(), before.size(),
                                   HL_DTYPE_F32, nullptr),
                  HL_OK);
    }
    ASSERT_EQ(hl_session_apply(session.get(), 0, 1, x.data(), x.size(), nullptr, after.data(), after.size(),
                               HL_DTYPE_F32, nullptr),
              HL_OK);
    EXPECT_EQ(before, after);
}

TEST(Session, TellsWhatItHolds) {
    Bytes bytes(small_spec());
    PoolPtr pool = bytes.open();
    auto options = sized<hl_session_options>();
    options.cache_bytes = 1 << 20;
    options.threads = 2;
    options.isa = HL_ISA_SCALAR;
    SessionPtr session = session_of(pool.get(), &options);
    auto view = sized<hl_session_view>();
    ASSERT_EQ(hl_session_info(session.get(), &view), HL_OK);
    EXPECT_EQ(view.cache_bytes, 1u << 20);
    EXPECT_EQ(view.cached_bytes, 0u);
    EXPECT_EQ(view.routes, 0u);
    EXPECT_EQ(view.threads, 2u);
    EXPECT_EQ(view.isa, HL_ISA_SCALAR);
    RoutePtr route = route_or_fail(pool.get(), bytes.prompt(1));
    prepare(session.get(), {route.get(), route.get()});
    ASSERT_EQ(hl_session_info(session.get(), &view), HL_OK);
    EXPECT_EQ(view.routes, 2u);
    EXPECT_EQ(view.hits, 0u);
    EXPECT_GT(view.misses, 0u);
    EXPECT_GT(view.pinned_rocs, 0u);
    EXPECT_EQ(view.pinned_bytes, view.needed_bytes);
    EXPECT_EQ(view.cached_bytes, view.pinned_bytes);
    ASSERT_EQ(hl_session_prepare(session.get(), nullptr, 0, nullptr), HL_OK);
    ASSERT_EQ(hl_session_info(session.get(), &view), HL_OK);
    EXPECT_EQ(view.pinned_bytes, 0u);
    EXPECT_GT(view.cached_bytes, 0u);
    EXPECT_EQ(hl_session_info(nullptr, &view), HL_ERR_ARGUMENT);
    view.struct_size = sizeof(size_t);
    EXPECT_EQ(hl_session_info(session.get(), &view), HL_ERR_ARGUMENT);
}

// Structures of another release: larger ones with zeros are taken, larger ones with more are not.
TEST(Session, TakesStructuresOfLaterHeaders) {
    Bytes bytes(small_spec());
    PoolPtr pool = bytes.open();
    struct Later {
        hl_session_options now;
        uint64_t more;
    } options{};
    options.now.struct_size = sizeof options;
    SessionPtr session = session_of(pool.get(), &options.now);
    options.more = 1;
    hl_session *none = nullptr;
    EXPECT_EQ(hl_session_create(pool.get(), &options.now, &none, nullptr), HL_ERR_UNSUPPORTED);
    struct LaterView {
        hl_session_view now;
        uint64_t more;
    } view{};
    view.now.struct_size = sizeof view;
    view.more = 7;
    EXPECT_EQ(hl_session_info(session.get(), &view.now), HL_OK);
    EXPECT_EQ(view.more, 0u);
}

// Activations in 16 bits: the update is added once, in float32, and rounded once.
TEST(Session, SixteenBitActivationsAreRoundedOnce) {
    Bytes bytes(small_spec());
    PoolPtr pool = bytes.open();
    RoutePtr route = route_or_fail(pool.get(), bytes.prompt(4));
    SessionPtr session = session_of(pool.get());
    prepare(session.get(), {route.get()});
    const hl_module_view module = module_of(pool.get(), 1);
    std::vector<uint16_t> x(module.d_in), y(module.d_out, 0x3F80); // bfloat16: 1
    for (size_t i = 0; i < x.size(); i++) {
        x[i] = static_cast<uint16_t>(0x3F80 + i); // 1 and above
    }
    std::vector<float> wide(module.d_in), update(module.d_out);
    for (size_t i = 0; i < x.size(); i++) {
        const uint32_t bits = static_cast<uint32_t>(x[i]) << 16;
        std::memcpy(&wide[i], &bits, sizeof bits);
    }
    ASSERT_EQ(
        hl_session_apply(session.get(), 1, 1, x.data(), x.size(), nullptr, y.data(), y.size(), HL_DTYPE_BF16, nullptr),
        HL_OK);
    ASSERT_EQ(hl_session_apply(session.get(), 1, 1, wide.data(), wide.size(), nullptr, update.data(), update.size(),
                               HL_DTYPE_F32, nullptr),
              HL_OK);
    for (size_t c = 0; c < y.size(); c++) {
        const float sum = 1 + update[c];
        uint32_t bits;
        std::memcpy(&bits, &sum, sizeof bits);
        bits += 0x7FFF + (bits >> 16 & 1);
        EXPECT_EQ(y[c], static_cast<uint16_t>(bits >> 16)) << c;
    }
}

TEST(Session, BlendsCoverTheModulesOfTheRoute) {
    hlt_pool_spec spec = small_spec();
    spec.modules = 7;
    spec.modules_per_adapter = 2;
    Bytes bytes(spec);
    PoolPtr pool = bytes.open();
    auto options = sized<hl_route_options>();
    options.gamma = 0.5;
    RoutePtr route = route_or_fail(pool.get(), bytes.prompt(5), &options);
    SessionPtr session = session_of(pool.get());
    hl_lora *made = nullptr;
    ASSERT_EQ(hl_blend(session.get(), route.get(), &made, nullptr), HL_OK);
    LoraPtr lora(made);
    std::vector<uint32_t> ranks(spec.modules), found(spec.modules);
    auto view = sized<hl_route_view>();
    ASSERT_EQ(hl_route_info(route.get(), &view), HL_OK);
    for (uint32_t i = 0; i < view.count; i++) {
        auto item = sized<hl_route_item>();
        ASSERT_EQ(hl_route_item_at(route.get(), i, &item), HL_OK);
        auto entry = sized<hl_entry_view>();
        for (uint32_t k = 0; hl_entry_at(pool.get(), item.adapter, k, &entry) == HL_OK; k++) {
            ranks[entry.module] += hl_route_module_rocs(item.rocs, item.rank, entry.rank);
        }
    }
    auto module = sized<hl_lora_view>();
    for (uint32_t i = 0; hl_lora_at(lora.get(), i, &module) == HL_OK; i++) {
        found[module.module] = module.rank;
        EXPECT_EQ(module.d_in, module_of(pool.get(), module.module).d_in);
        EXPECT_EQ(module.d_out, module_of(pool.get(), module.module).d_out);
    }
    EXPECT_EQ(found, ranks);
}

} // namespace
