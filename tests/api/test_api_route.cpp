// Routing through the public API. The rules themselves are compared with a reference by tests/interop/test_routing.py.
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "tests/api/api_fixture.h"

namespace {

hl_route_view info_of(const hl_route *route) {
    auto view = sized<hl_route_view>();
    EXPECT_EQ(hl_route_info(route, &view), HL_OK);
    return view;
}

hl_status compute(const hl_pool *pool, const std::vector<float> &z, const hl_route_options &options,
                  hl_diag *diag = nullptr) {
    hl_route *route = reinterpret_cast<hl_route *>(&route);
    hl_status status = hl_route_compute(pool, z.data(), z.size(), &options, &route, diag);
    EXPECT_EQ(status == HL_OK, route != nullptr);
    hl_route_free(route);
    return status;
}

uint32_t rank_of(const hl_pool *pool, uint32_t adapter) {
    auto view = sized<hl_adapter_view>();
    EXPECT_EQ(hl_adapter_at(pool, adapter, &view), HL_OK);
    return view.rank;
}

TEST(Route, DefaultsAreThePoolsOwn) {
    Bytes bytes(small_spec());
    PoolPtr pool = bytes.open();
    RoutePtr route = route_or_fail(pool.get(), bytes.prompt(1));
    hl_route_view view = info_of(route.get());
    EXPECT_EQ(view.select, HL_SELECT_POSTERIOR);
    EXPECT_EQ(view.fallback, HL_FALLBACK_WIDE);
    EXPECT_EQ(view.allocate, HL_ALLOCATE_PROPORTIONAL);
    EXPECT_EQ(view.gate, HL_GATE_ACTIVATION);
    EXPECT_EQ(view.rows, HL_ROWS_SOURCE);
    EXPECT_EQ(view.variance_norm, 0u);
    EXPECT_EQ(view.k, 3u);
    EXPECT_EQ(view.wide_k, 8u);
    EXPECT_EQ(view.max_adapters, 16u);
    EXPECT_EQ(view.gamma, 0.4);
    EXPECT_EQ(view.p, 0.9);
    EXPECT_EQ(view.familiar_quantile, 0.05);
    EXPECT_EQ(view.allowed, 6u);
    EXPECT_TRUE(view.tested);
    EXPECT_EQ(view.familiar != 0, view.best >= view.threshold);
}

TEST(Route, WeightsSumToOneAndRocsKeepToTheBudget) {
    Bytes bytes(small_spec());
    PoolPtr pool = bytes.open();
    for (uint64_t seed = 0; seed < 50; seed++) {
        RoutePtr route = route_or_fail(pool.get(), bytes.prompt(seed));
        Decision decision = decision_of(route.get());
        hl_route_view view = info_of(route.get());
        ASSERT_FALSE(decision.adapters.empty());
        EXPECT_EQ(std::accumulate(decision.parts.begin(), decision.parts.end(), 0u), 256u);
        EXPECT_LE(std::accumulate(decision.rocs.begin(), decision.rocs.end(), 0u), view.budget);
        for (size_t i = 0; i < decision.adapters.size(); i++) {
            EXPECT_GE(decision.rocs[i], 1u);
            EXPECT_LE(decision.rocs[i], rank_of(pool.get(), decision.adapters[i]));
        }
        EXPECT_TRUE(std::is_sorted(decision.scores.rbegin(), decision.scores.rend()));
    }
}

TEST(Route, OneAdapterGetsAllTheWeight) {
    hlt_pool_spec spec = small_spec();
    spec.adapters = 1;
    Bytes bytes(spec);
    PoolPtr pool = bytes.open();
    auto options = sized<hl_route_options>();
    for (double gamma : {0.01, 0.4, 0.5, 1.0}) {
        options.gamma = gamma;
        options.k = 100;
        Decision decision = decision_of(route_or_fail(pool.get(), bytes.prompt(1), &options).get());
        ASSERT_EQ(decision.adapters, std::vector<uint32_t>{0});
        EXPECT_EQ(decision.parts[0], 256u);
        EXPECT_EQ(decision.rocs[0],
                  std::max(1u, static_cast<uint32_t>(std::floor(gamma * rank_of(pool.get(), 0) + 0.5))));
    }
}

TEST(Route, EqualScoresGoToTheLowerPositions) {
    hlt_pool_spec spec = small_spec();
    spec.duplicate = 1; // all adapters have the statistics of the first
    spec.adapters = 20;
    Bytes bytes(spec);
    PoolPtr pool = bytes.open();
    for (hl_select select : {HL_SELECT_POSTERIOR, HL_SELECT_TOP_K, HL_SELECT_COSINE}) {
        auto options = sized<hl_route_options>();
        options.select = select;
        options.fallback = HL_FALLBACK_NONE;
        Decision decision = decision_of(route_or_fail(pool.get(), bytes.prompt(1), &options).get());
        EXPECT_EQ(decision.adapters, (std::vector<uint32_t>{0, 1, 2}));
        EXPECT_EQ(decision.parts, (std::vector<uint32_t>{86, 85, 85}));
    }
}

TEST(Route, AnUnfamiliarPromptFallsBack) {
    hlt_pool_spec spec = small_spec();
    spec.adapters = 20;
    Bytes bytes(spec);
    PoolPtr pool = bytes.open();
    std::vector<float> far(spec.dim, 50.0f);
    auto options = sized<hl_route_options>();
    RoutePtr wide = route_or_fail(pool.get(), far, &options);
    EXPECT_EQ(info_of(wide.get()).familiar, 0u);
    EXPECT_EQ(info_of(wide.get()).fell_back, 1u);
    EXPECT_EQ(info_of(wide.get()).wanted, 8u);
    options.fallback = HL_FALLBACK_BASE;
    RoutePtr base = route_or_fail(pool.get(), far, &options);
    EXPECT_EQ(info_of(base.get()).count, 0u);
    EXPECT_EQ(info_of(base.get()).familiar, 0u);
    options.fallback = HL_FALLBACK_NONE;
    RoutePtr none = route_or_fail(pool.get(), far, &options);
    EXPECT_EQ(info_of(none.get()).familiar, 0u);
    EXPECT_EQ(info_of(none.get()).fell_back, 0u);
    EXPECT_EQ(info_of(none.get()).wanted, 3u);
}

TEST(Route, ListsLeaveOutAdapters) {
    Bytes bytes(small_spec());
    PoolPtr pool = bytes.open();
    std::vector<float> z = bytes.prompt(1);
    const uint32_t some[] = {1, 4, 4}, beyond[] = {6};
    auto options = sized<hl_route_options>();
    options.allow = some;
    options.allow_count = 3;
    Decision decision = decision_of(route_or_fail(pool.get(), z, &options).get());
    for (uint32_t adapter : decision.adapters) {
        EXPECT_TRUE(adapter == 1 || adapter == 4);
    }
    options.deny = some;
    options.deny_count = 2;
    EXPECT_EQ(compute(pool.get(), z, options), HL_ERR_ARGUMENT); // nothing left
    options = sized<hl_route_options>();
    options.allow = some;
    EXPECT_EQ(compute(pool.get(), z, options), HL_ERR_ARGUMENT); // an empty list allows none
    options.allow = beyond;
    options.allow_count = 1;
    EXPECT_EQ(compute(pool.get(), z, options), HL_ERR_NOT_FOUND);
    options.allow = nullptr;
    EXPECT_EQ(compute(pool.get(), z, options), HL_ERR_ARGUMENT); // a count without a list
    options = sized<hl_route_options>();
    options.deny = beyond;
    options.deny_count = 1;
    EXPECT_EQ(compute(pool.get(), z, options), HL_ERR_NOT_FOUND);
}

TEST(Route, RefusesOptionsOutOfRange) {
    Bytes bytes(small_spec());
    PoolPtr pool = bytes.open();
    std::vector<float> z = bytes.prompt(1);
    const double nan = std::numeric_limits<double>::quiet_NaN(), infinity = std::numeric_limits<double>::infinity();
    auto refuses = [&](double hl_route_options::*field, std::vector<double> values) {
        for (double value : values) {
            auto options = sized<hl_route_options>();
            options.*field = value;
            EXPECT_EQ(compute(pool.get(), z, options), HL_ERR_ARGUMENT) << value;
        }
    };
    refuses(&hl_route_options::p, {-0.1, 1.1, nan, infinity});
    refuses(&hl_route_options::gamma, {-0.1, 1.1, nan, infinity});
    refuses(&hl_route_options::temperature, {-1, nan, infinity});
    refuses(&hl_route_options::familiar, {-0.5, 0.51, nan, infinity});
    auto options = sized<hl_route_options>();
    set_raw(&options.select, 8);
    EXPECT_EQ(compute(pool.get(), z, options), HL_ERR_ARGUMENT);
    options = sized<hl_route_options>();
    set_raw(&options.weights, -1);
    EXPECT_EQ(compute(pool.get(), z, options), HL_ERR_ARGUMENT);
    options = sized<hl_route_options>();
    options.struct_size = 4;
    EXPECT_EQ(compute(pool.get(), z, options), HL_ERR_ARGUMENT);
    hl_route *route = nullptr;
    EXPECT_EQ(hl_route_compute(nullptr, z.data(), z.size(), nullptr, &route, nullptr), HL_ERR_ARGUMENT);
    EXPECT_EQ(hl_route_compute(pool.get(), nullptr, 3, nullptr, &route, nullptr), HL_ERR_ARGUMENT);
    EXPECT_EQ(hl_route_compute(pool.get(), nullptr, 0, nullptr, &route, nullptr), HL_ERR_ARGUMENT);
    EXPECT_EQ(hl_route_compute(pool.get(), z.data(), z.size(), nullptr, nullptr, nullptr), HL_ERR_ARGUMENT);
}

TEST(Route, RefusesEmbeddingsThatCannotBe) {
    hlt_pool_spec spec = small_spec();
    spec.normalized = true;
    Bytes bytes(spec);
    PoolPtr pool = bytes.open();
    auto options = sized<hl_route_options>();
    std::vector<float> z = bytes.prompt(1);
    hl_diag diag = clear_diag();
    EXPECT_EQ(compute(pool.get(), z, options), HL_OK);
    for (float value : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
        std::vector<float> bad = z;
        bad[7] = value;
        diag = clear_diag();
        EXPECT_EQ(compute(pool.get(), bad, options, &diag), HL_ERR_INPUT);
        EXPECT_NE(std::string(diag.message).find("element 7"), std::string::npos);
    }
    for (float factor : {0.0f, 0.99f, 1.01f, 30.0f}) {
        std::vector<float> bad = z;
        for (float &x : bad) {
            x *= factor;
        }
        EXPECT_EQ(compute(pool.get(), bad, options), HL_ERR_INPUT) << factor;
    }
    std::vector<float> near = z;
    for (float &x : near) {
        x *= 1.0009f;
    }
    EXPECT_EQ(compute(pool.get(), near, options), HL_OK);
    z.push_back(0);
    EXPECT_EQ(compute(pool.get(), z, options), HL_ERR_INPUT);
}

TEST(Route, HugeEmbeddingsStillRank) {
    Bytes bytes(small_spec());
    PoolPtr pool = bytes.open();
    std::vector<float> z(bytes.spec.dim, 3e38f);
    auto options = sized<hl_route_options>();
    options.select = HL_SELECT_TOP_K;
    Decision decision = decision_of(route_or_fail(pool.get(), z, &options).get());
    EXPECT_GE(decision.adapters.size(), 1u);
    EXPECT_TRUE(std::isfinite(decision.scores[0]));
}

TEST(Route, ExplicitNeedsNoEmbedding) {
    Bytes bytes(small_spec());
    PoolPtr pool = bytes.open();
    const uint32_t names[] = {5, 2, 3};
    const double weights[] = {1, 2, 1};
    auto options = sized<hl_route_options>();
    options.select = HL_SELECT_EXPLICIT;
    options.adapters = names;
    options.adapter_count = 3;
    options.adapter_weights = weights;
    options.gamma = 1;
    hl_route *raw = nullptr;
    ASSERT_EQ(hl_route_compute(pool.get(), nullptr, 0, &options, &raw, nullptr), HL_OK);
    RoutePtr route(raw);
    Decision decision = decision_of(raw);
    EXPECT_EQ(decision.adapters, (std::vector<uint32_t>{2, 3, 5}));
    EXPECT_EQ(decision.parts, (std::vector<uint32_t>{128, 64, 64}));
    for (size_t i = 0; i < 3; i++) {
        EXPECT_EQ(decision.rocs[i], rank_of(pool.get(), decision.adapters[i])); // gamma 1: all of them
        EXPECT_TRUE(std::isnan(decision.scores[i]));
    }
    EXPECT_EQ(info_of(raw).tested, 0u);
    EXPECT_EQ(info_of(raw).familiar, 1u);
}

TEST(Route, ExplicitRefusesWhatItCannotDo) {
    Bytes bytes(small_spec());
    PoolPtr pool = bytes.open();
    std::vector<float> z = bytes.prompt(1);
    const uint32_t names[] = {5, 2}, twice[] = {2, 2}, beyond[] = {6, 1};
    auto make = [&](const uint32_t *adapters) {
        auto options = sized<hl_route_options>();
        options.select = HL_SELECT_EXPLICIT;
        options.adapters = adapters;
        options.adapter_count = 2;
        return options;
    };
    auto options = make(names);
    EXPECT_EQ(compute(pool.get(), z, options), HL_OK);
    options.deny = names;
    options.deny_count = 1;
    EXPECT_EQ(compute(pool.get(), z, options), HL_ERR_ARGUMENT);
    EXPECT_EQ(compute(pool.get(), z, make(twice)), HL_ERR_ARGUMENT);
    EXPECT_EQ(compute(pool.get(), z, make(beyond)), HL_ERR_NOT_FOUND);
    options = make(names);
    options.max_adapters = 1;
    EXPECT_EQ(compute(pool.get(), z, options), HL_ERR_ARGUMENT);
    options = make(names);
    options.adapter_count = 0;
    EXPECT_EQ(compute(pool.get(), z, options), HL_ERR_ARGUMENT);
    options = make(names);
    options.select = HL_SELECT_TOP_K;
    EXPECT_EQ(compute(pool.get(), z, options), HL_ERR_ARGUMENT);
    const double nan = std::numeric_limits<double>::quiet_NaN();
    for (auto pair :
         std::vector<std::pair<double, double>>{{1, -1}, {1, nan}, {1, INFINITY}, {1, 0}, {1, 1e-4}, {0, 0}}) {
        const double weights[] = {pair.first, pair.second};
        options = make(names);
        options.adapter_weights = weights;
        EXPECT_EQ(compute(pool.get(), z, options), HL_ERR_ARGUMENT) << pair.second;
    }
    const double huge[] = {1.5e308, 0.5e308};
    options = make(names);
    options.adapter_weights = huge;
    EXPECT_EQ(decision_of(route_or_fail(pool.get(), z, &options).get()).parts, (std::vector<uint32_t>{192, 64}));
    options = make(names);
    options.weights = HL_WEIGHTS_POSTERIOR;
    hl_route *route = nullptr;
    EXPECT_EQ(hl_route_compute(pool.get(), nullptr, 0, &options, &route, nullptr), HL_ERR_ARGUMENT);
    EXPECT_EQ(compute(pool.get(), z, options), HL_OK);
}

TEST(Route, APoolWithoutStatisticsTakesNamesOnly) {
    hlt_pool_spec spec = small_spec();
    spec.dim = 0;
    spec.rivals = 0;
    Bytes bytes(spec);
    PoolPtr pool = bytes.open();
    const float nothing = 0;
    hl_route *route = nullptr;
    EXPECT_EQ(hl_route_compute(pool.get(), &nothing, 0, nullptr, &route, nullptr), HL_ERR_UNSUPPORTED);
    const uint32_t names[] = {5};
    auto options = sized<hl_route_options>();
    options.select = HL_SELECT_EXPLICIT;
    options.adapters = names;
    options.adapter_count = 1;
    ASSERT_EQ(hl_route_compute(pool.get(), nullptr, 0, &options, &route, nullptr), HL_OK);
    EXPECT_EQ(decision_of(route).adapters, std::vector<uint32_t>{5});
    hl_route_free(route);
    EXPECT_EQ(hl_pool_verify(pool.get(), nullptr, nullptr), HL_OK);
}

// ---- batches ----

TEST(Batch, IsManySingleCalls) {
    for (bool whiten : {false, true}) {
        hlt_pool_spec spec = small_spec();
        spec.whiten = whiten;
        Bytes bytes(spec);
        PoolPtr pool = bytes.open();
        const size_t count = 21, stride = spec.dim + 3;
        std::vector<double> wide(count * stride, 1e300);
        std::vector<Decision> expected;
        for (size_t i = 0; i < count; i++) {
            std::vector<float> z = bytes.prompt(i);
            std::copy(z.begin(), z.end(), wide.begin() + static_cast<std::ptrdiff_t>(i * stride));
            expected.push_back(decision_of(route_or_fail(pool.get(), z).get()));
        }
        const hl_embeddings embeddings = {wide.data(), HL_DTYPE_F64, count, spec.dim, stride};
        std::vector<hl_route *> routes(count);
        ASSERT_EQ(hl_route_compute_batch(pool.get(), &embeddings, nullptr, routes.data(), nullptr), HL_OK);
        for (size_t i = 0; i < count; i++) {
            EXPECT_TRUE(decision_of(routes[i]) == expected[i]) << i;
            hl_route_free(routes[i]);
        }
    }
}

TEST(Batch, OneBadRowFailsAllAndIsNamed) {
    Bytes bytes(small_spec());
    PoolPtr pool = bytes.open();
    const size_t count = 20, dim = bytes.spec.dim;
    std::vector<double> rows(count * dim, 0.5);
    rows[13 * dim + 2] = 1e39; // finite, but not in float32
    const hl_embeddings embeddings = {rows.data(), HL_DTYPE_F64, count, dim, 0};
    std::vector<hl_route *> routes(count, reinterpret_cast<hl_route *>(&rows));
    hl_diag diag = clear_diag();
    EXPECT_EQ(hl_route_compute_batch(pool.get(), &embeddings, nullptr, routes.data(), &diag), HL_ERR_INPUT);
    EXPECT_NE(std::string(diag.message).find("embedding 13: element 2 is too large"), std::string::npos)
        << diag.message;
    EXPECT_EQ(std::count(routes.begin(), routes.end(), nullptr), static_cast<std::ptrdiff_t>(count));
}

TEST(Batch, ChecksArguments) {
    Bytes bytes(small_spec());
    PoolPtr pool = bytes.open();
    std::vector<float> z = bytes.prompt(1);
    hl_route *route = nullptr;
    hl_embeddings one = {z.data(), HL_DTYPE_F32, 1, z.size(), 0};
    EXPECT_EQ(hl_route_compute_batch(pool.get(), nullptr, nullptr, &route, nullptr), HL_ERR_ARGUMENT);
    EXPECT_EQ(hl_route_compute_batch(pool.get(), &one, nullptr, nullptr, nullptr), HL_ERR_ARGUMENT);
    one.stride = z.size() - 1;
    EXPECT_EQ(hl_route_compute_batch(pool.get(), &one, nullptr, &route, nullptr), HL_ERR_ARGUMENT);
    one.stride = 0;
    one.dtype = HL_DTYPE_NONE;
    EXPECT_EQ(hl_route_compute_batch(pool.get(), &one, nullptr, &route, nullptr), HL_ERR_ARGUMENT);
    one.count = 0;
    one.dtype = HL_DTYPE_F32;
    EXPECT_EQ(hl_route_compute_batch(pool.get(), &one, nullptr, nullptr, nullptr), HL_OK);
}

// ---- instruction sets, scores, digests, explanations ----

TEST(Score, EveryInstructionSetGivesTheSameBits) {
    for (uint32_t dim : {1u, 7u, 16u, 33u, 384u, 769u}) {
        hlt_pool_spec spec = small_spec();
        spec.dim = dim;
        spec.max_samples = 23;
        Bytes bytes(spec);
        auto options = sized<hl_pool_options>();
        options.isa = HL_ISA_SCALAR;
        PoolPtr scalar = bytes.open(&options);
        options.isa = HL_ISA_AVX2;
        hl_pool *raw = nullptr;
        if (hl_pool_open_memory(bytes.data(), bytes.size(), &options, &raw, nullptr) == HL_ERR_UNSUPPORTED) {
            GTEST_SKIP() << "no AVX2 here";
        }
        PoolPtr vector(raw);
        for (uint64_t seed = 0; seed < 20; seed++) {
            std::vector<float> z = bytes.prompt(seed);
            std::vector<double> a(spec.adapters), b(spec.adapters);
            ASSERT_EQ(hl_score_compute(scalar.get(), z.data(), dim, a.data(), a.size(), nullptr), HL_OK);
            ASSERT_EQ(hl_score_compute(vector.get(), z.data(), dim, b.data(), b.size(), nullptr), HL_OK);
            EXPECT_EQ(std::memcmp(a.data(), b.data(), a.size() * sizeof(double)), 0) << "d = " << dim;
        }
    }
}

TEST(Score, IsThatOfTheRoute) {
    hlt_pool_spec spec = small_spec();
    spec.unroutable = 0.4;
    Bytes bytes(spec);
    PoolPtr pool = bytes.open();
    std::vector<float> z = bytes.prompt(1);
    std::vector<double> scores(spec.adapters);
    ASSERT_EQ(hl_score_compute(pool.get(), z.data(), z.size(), scores.data(), scores.size(), nullptr), HL_OK);
    EXPECT_EQ(hl_score_compute(pool.get(), z.data(), z.size(), scores.data(), scores.size() - 1, nullptr),
              HL_ERR_ARGUMENT);
    for (uint32_t i = 0; i < spec.adapters; i++) {
        auto view = sized<hl_adapter_view>();
        ASSERT_EQ(hl_adapter_at(pool.get(), i, &view), HL_OK);
        EXPECT_EQ(std::isnan(scores[i]), !(view.flags & HL_ADAPTER_ROUTABLE));
    }
    RoutePtr route = route_or_fail(pool.get(), z);
    auto item = sized<hl_route_item>();
    ASSERT_EQ(hl_route_item_at(route.get(), 0, &item), HL_OK);
    EXPECT_EQ(item.log_likelihood, scores[item.adapter]);
    EXPECT_EQ(item.score, scores[item.adapter] / spec.dim);
    EXPECT_EQ(item.weight, item.weight_256 / 256.0);
    EXPECT_EQ(hl_route_item_at(route.get(), 16, &item), HL_ERR_NOT_FOUND);
}

TEST(Digest, IsOfTheEffectAlone) {
    hlt_pool_spec spec = small_spec();
    Bytes bytes(spec);
    spec.adapters = 9; // the first six are the same adapters
    Bytes larger(spec);
    PoolPtr pool = bytes.open(), grown = larger.open();
    const uint32_t names[] = {5, 2}, reversed[] = {2, 5};
    auto options = sized<hl_route_options>();
    options.select = HL_SELECT_EXPLICIT;
    options.adapters = names;
    options.adapter_count = 2;
    auto digest = [&](const PoolPtr &of, uint64_t seed) {
        RoutePtr route = route_or_fail(of.get(), bytes.prompt(seed), &options);
        std::vector<uint8_t> out(16);
        hl_route_digest(route.get(), out.data());
        return out;
    };
    const std::vector<uint8_t> first = digest(pool, 1);
    EXPECT_EQ(digest(pool, 2), first);
    EXPECT_EQ(digest(grown, 1), first);
    options.adapters = reversed;
    EXPECT_EQ(digest(pool, 1), first);
    options.gate = HL_GATE_STATIC;
    EXPECT_NE(digest(pool, 1), first);
    options.gate = HL_GATE_DEFAULT;
    options.rows = HL_ROWS_F32;
    EXPECT_NE(digest(pool, 1), first);
    options.rows = HL_ROWS_SOURCE;
    options.variance_norm = HL_SWITCH_ON;
    EXPECT_NE(digest(pool, 1), first);
    options.variance_norm = HL_SWITCH_OFF;
    EXPECT_EQ(digest(pool, 1), first);
    options.gamma = 1;
    EXPECT_NE(digest(pool, 1), first);
}

TEST(Fate, SaysWhyEachAdapterIsInOrOut) {
    hlt_pool_spec spec = small_spec();
    spec.adapters = 40;
    spec.unroutable = 0.1;
    spec.conditional = 0.3;
    Bytes bytes(spec);
    PoolPtr pool = bytes.open();
    const uint32_t deny[] = {3, 4};
    auto options = sized<hl_route_options>();
    options.deny = deny;
    options.deny_count = 2;
    options.keep_all = 1;
    options.gamma = 0.05;
    for (uint64_t seed = 0; seed < 30; seed++) {
        RoutePtr route = route_or_fail(pool.get(), bytes.prompt(seed), &options);
        Decision decision = decision_of(route.get());
        std::vector<uint32_t> chosen, ranks;
        for (uint32_t i = 0; i < spec.adapters; i++) {
            auto fate = sized<hl_fate_view>();
            auto adapter = sized<hl_adapter_view>();
            ASSERT_EQ(hl_route_fate_at(route.get(), i, &fate), HL_OK);
            ASSERT_EQ(hl_adapter_at(pool.get(), i, &adapter), HL_OK);
            if (fate.fate == HL_FATE_CHOSEN) {
                chosen.push_back(i);
            }
            if (fate.rank != HL_NONE) {
                ranks.push_back(fate.rank);
            }
            EXPECT_EQ(fate.fate == HL_FATE_DENIED, i == 3 || i == 4);
            EXPECT_TRUE(fate.fate != HL_FATE_UNROUTABLE || adapter.samples == 0);
            if (fate.fate == HL_FATE_CONDITION) {
                EXPECT_TRUE(adapter.flags & HL_ADAPTER_CONDITIONAL);
                EXPECT_LT(fate.score, adapter.threshold);
            }
            if (adapter.flags & HL_ADAPTER_CALIBRATED && !std::isnan(fate.log_likelihood)) {
                EXPECT_TRUE(fate.position >= 0 && fate.position <= 0.5);
                EXPECT_EQ(fate.position == 0.5, fate.log_likelihood >= adapter.quantiles[6]);
                EXPECT_EQ(fate.position == 0, fate.log_likelihood <= adapter.quantiles[0]);
            }
        }
        std::sort(decision.adapters.begin(), decision.adapters.end());
        EXPECT_EQ(chosen, decision.adapters);
        std::sort(ranks.begin(), ranks.end());
        std::vector<uint32_t> all(info_of(route.get()).allowed);
        std::iota(all.begin(), all.end(), 0u);
        EXPECT_EQ(ranks, all);
    }
    options.fallback = HL_FALLBACK_BASE;
    RoutePtr base = route_or_fail(pool.get(), std::vector<float>(spec.dim, 99.0f), &options);
    std::vector<int> fates(8);
    for (uint32_t i = 0; i < spec.adapters; i++) {
        auto fate = sized<hl_fate_view>();
        ASSERT_EQ(hl_route_fate_at(base.get(), i, &fate), HL_OK);
        fates[fate.fate]++;
    }
    EXPECT_EQ(fates[HL_FATE_UNFAMILIAR], static_cast<int>(info_of(base.get()).allowed));
    EXPECT_GT(fates[HL_FATE_UNFAMILIAR], 0);
    EXPECT_EQ(fates[HL_FATE_DENIED], 2);
    RoutePtr plain = route_or_fail(pool.get(), bytes.prompt(1));
    auto fate = sized<hl_fate_view>();
    EXPECT_EQ(hl_route_fate_at(plain.get(), 0, &fate), HL_ERR_ARGUMENT);
}

TEST(Route, RocsOfASmallerModuleAreRoundedUp) {
    for (uint32_t rank = 1; rank <= 20; rank++) {
        for (uint32_t rocs = 1; rocs <= rank; rocs++) {
            for (uint32_t module = 1; module <= rank; module++) {
                uint32_t expected = static_cast<uint32_t>(std::ceil(static_cast<double>(rocs * module) / rank - 1e-9));
                EXPECT_EQ(hl_route_module_rocs(rocs, rank, module), expected);
            }
        }
    }
    EXPECT_EQ(hl_route_module_rocs(65535, 65535, 65535), 65535u);
    EXPECT_EQ(hl_route_module_rocs(1, 0, 1), 0u);
}

} // namespace
