// Conditional adapters: thresholds that a pool records and those of one call; what a route tells of them.
#include <algorithm>
#include <cstddef>
#include <limits>

#include "tests/api/api_fixture.h"

namespace {

constexpr double none = -std::numeric_limits<double>::infinity();

struct Call {
    hl_route_options options = sized<hl_route_options>();
    std::vector<uint32_t> positions;
    std::vector<double> scores;

    hl_status route(const hl_pool *pool, const std::vector<float> &z, RoutePtr *out, hl_diag *diag = nullptr) {
        options.conditional = positions.empty() ? nullptr : positions.data();
        options.conditional_count = positions.size();
        options.thresholds = scores.empty() ? nullptr : scores.data();
        hl_route *route = nullptr;
        hl_status status =
            hl_route_compute(pool, z.empty() ? nullptr : z.data(), z.size(), &options, &route, diag);
        out->reset(route);
        return status;
    }
};

hl_fate_view fate_of(const RoutePtr &route, uint32_t adapter) {
    auto fate = sized<hl_fate_view>();
    EXPECT_EQ(hl_route_fate_at(route.get(), adapter, &fate), HL_OK);
    return fate;
}

hl_route_view info_of(const RoutePtr &route) {
    auto view = sized<hl_route_view>();
    EXPECT_EQ(hl_route_info(route.get(), &view), HL_OK);
    return view;
}

class Conditions : public testing::Test {
  protected:
    Bytes bytes{small_spec()};
    PoolPtr pool = bytes.open();
    std::vector<float> z = bytes.prompt(1);
    std::vector<double> score = std::vector<double>(small_spec().adapters);
    RoutePtr route;

    void SetUp() override {
        ASSERT_EQ(hl_score_compute(pool.get(), z.data(), z.size(), score.data(), score.size(), nullptr), HL_OK);
        for (double &s : score) {
            s /= small_spec().dim;
        }
    }
};

TEST_F(Conditions, AScoreAtTheThresholdPassesAndOneBelowDoesNot) {
    Call call;
    call.options.select = HL_SELECT_TOP_K;
    call.options.k = 6;
    call.options.keep_all = 1;
    call.positions = {4, 1};
    call.scores = {score[4], std::nextafter(score[1], HUGE_VAL)};
    ASSERT_EQ(call.route(pool.get(), z, &route), HL_OK);
    EXPECT_NE(fate_of(route, 4).fate, HL_FATE_CONDITION);
    EXPECT_EQ(fate_of(route, 4).threshold, score[4]);
    EXPECT_EQ(fate_of(route, 1).fate, HL_FATE_CONDITION);
    EXPECT_EQ(fate_of(route, 1).score, score[1]);
    EXPECT_EQ(fate_of(route, 1).rank, HL_NONE);
    EXPECT_EQ(fate_of(route, 0).threshold, none);
    EXPECT_EQ(info_of(route).allowed, 5u);
}

TEST_F(Conditions, AllOutIsTheEmptyRouteUnderEverySelection) {
    for (int select = HL_SELECT_POSTERIOR; select <= HL_SELECT_EXPLICIT; select++) {
        Call call;
        const uint32_t named[] = {2, 3};
        set_raw(&call.options.select, select);
        if (select == HL_SELECT_EXPLICIT) {
            call.options.adapters = named;
            call.options.adapter_count = 2;
        }
        for (uint32_t i = 0; i < 6; i++) {
            call.positions.push_back(i);
            call.scores.push_back(HUGE_VAL);
        }
        ASSERT_EQ(call.route(pool.get(), z, &route), HL_OK) << select;
        EXPECT_EQ(info_of(route).count, 0u);
        EXPECT_EQ(info_of(route).allowed, 0u);
        EXPECT_TRUE(std::isnan(info_of(route).best_position));
    }
}

TEST_F(Conditions, TheCallsThresholdHoldsInPlaceOfThePools) {
    hlt_pool_spec spec = small_spec();
    spec.conditional = 1;
    Bytes conditional(spec);
    PoolPtr own = conditional.open();
    RoutePtr found; // gone before its pool
    std::vector<float> far(spec.dim, 50.0f);
    Call call;
    call.options.select = HL_SELECT_TOP_K;
    call.options.keep_all = 1;
    ASSERT_EQ(call.route(own.get(), far, &found), HL_OK);
    EXPECT_EQ(fate_of(found, 2).fate, HL_FATE_CONDITION);
    auto adapter = sized<hl_adapter_view>();
    ASSERT_EQ(hl_adapter_at(own.get(), 2, &adapter), HL_OK);
    EXPECT_EQ(fate_of(found, 2).threshold, adapter.threshold);
    call.positions = {2};
    call.scores = {none};
    ASSERT_EQ(call.route(own.get(), far, &found), HL_OK);
    EXPECT_EQ(fate_of(found, 2).fate, HL_FATE_CHOSEN);
    EXPECT_EQ(info_of(found).count, 1u);
}

TEST_F(Conditions, ANamedAdapterWithAConditionNeedsAnEmbedding) {
    Call call;
    const uint32_t named[] = {2, 3};
    call.options.select = HL_SELECT_EXPLICIT;
    call.options.adapters = named;
    call.options.adapter_count = 2;
    call.positions = {3};
    call.scores = {0};
    hl_diag diag = clear_diag();
    EXPECT_EQ(call.route(pool.get(), {}, &route, &diag), HL_ERR_ARGUMENT);
    EXPECT_NE(std::string(diag.message).find("adapter 3"), std::string::npos);
    call.scores = {none};
    EXPECT_EQ(call.route(pool.get(), {}, &route), HL_OK);
}

TEST_F(Conditions, RefusesWhatIsNoThreshold) {
    auto refuses = [&](std::vector<uint32_t> positions, std::vector<double> scores, hl_status expected) {
        Call call;
        call.positions = positions;
        call.scores = scores;
        hl_diag diag = clear_diag();
        EXPECT_EQ(call.route(pool.get(), z, &route, &diag), expected);
        EXPECT_EQ(route, nullptr);
        return std::string(diag.message);
    };
    EXPECT_NE(refuses({1}, {std::nan("")}, HL_ERR_ARGUMENT).find("adapter-0000001"), std::string::npos);
    EXPECT_NE(refuses({1, 2, 1}, {0, 0, 0}, HL_ERR_ARGUMENT).find("twice"), std::string::npos);
    EXPECT_NE(refuses({6}, {0}, HL_ERR_NOT_FOUND).find("conditional"), std::string::npos);
    EXPECT_NE(refuses({1}, {}, HL_ERR_ARGUMENT).find("NULL"), std::string::npos);
}

// A caller that was built before there were thresholds.
TEST_F(Conditions, OlderStructuresAreTaken) {
    Call call;
    call.options.struct_size = offsetof(hl_route_options, conditional);
    call.options.keep_all = 1;
    call.positions = {0, 0, 99}; // not looked at
    ASSERT_EQ(call.route(pool.get(), z, &route), HL_OK);
    auto fate = sized<hl_fate_view>();
    fate.struct_size = offsetof(hl_fate_view, threshold);
    fate.threshold = fate.cosine = 7;
    ASSERT_EQ(hl_route_fate_at(route.get(), 0, &fate), HL_OK);
    EXPECT_EQ(fate.score, score[0]);
    EXPECT_EQ(fate.threshold, 7);
    EXPECT_EQ(fate.cosine, 7);
    auto view = sized<hl_route_view>();
    view.struct_size = offsetof(hl_route_view, best_position);
    view.best_position = 7;
    ASSERT_EQ(hl_route_info(route.get(), &view), HL_OK);
    EXPECT_EQ(view.best_position, 7);
    call.options.struct_size--;
    EXPECT_EQ(call.route(pool.get(), z, &route), HL_ERR_ARGUMENT);
}

TEST_F(Conditions, TheBestScoreHasAPlaceAmongThePoolsOwn) {
    auto info = sized<hl_pool_view>();
    ASSERT_EQ(hl_pool_info(pool.get(), &info), HL_OK);
    for (uint64_t seed = 0; seed < 20; seed++) {
        Call call;
        ASSERT_EQ(call.route(pool.get(), bytes.prompt(seed), &route), HL_OK);
        const hl_route_view view = info_of(route);
        EXPECT_TRUE(view.best_position >= 0 && view.best_position <= 0.5);
        EXPECT_EQ(view.best_position == 0.5, view.best >= info.quantiles[6]);
        EXPECT_EQ(view.best_position == 0, view.best <= info.quantiles[0]);
        EXPECT_EQ(view.best_position >= 0.05, view.best >= view.threshold);
    }
}

TEST_F(Conditions, ACosineIsToldWhereItRanks) {
    Call call;
    call.options.select = HL_SELECT_COSINE;
    call.options.keep_all = 1;
    const uint32_t deny[] = {5};
    call.options.deny = deny;
    call.options.deny_count = 1;
    ASSERT_EQ(call.route(pool.get(), z, &route), HL_OK);
    std::vector<std::pair<uint32_t, double>> ranked;
    for (uint32_t i = 0; i < 5; i++) {
        ranked.push_back({fate_of(route, i).rank, -fate_of(route, i).cosine});
        EXPECT_LE(std::fabs(fate_of(route, i).cosine), 1 + 1e-12);
        EXPECT_EQ(fate_of(route, i).score, score[i]);
    }
    std::sort(ranked.begin(), ranked.end());
    EXPECT_TRUE(std::is_sorted(ranked.begin(), ranked.end(), [](auto a, auto b) { return a.second < b.second; }));
    EXPECT_TRUE(std::isnan(fate_of(route, 5).cosine));
    call.options.select = HL_SELECT_TOP_K;
    ASSERT_EQ(call.route(pool.get(), z, &route), HL_OK);
    EXPECT_TRUE(std::isnan(fate_of(route, 0).cosine));
}

} // namespace
