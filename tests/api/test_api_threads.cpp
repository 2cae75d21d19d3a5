// One pool, many threads: the marks of what has been verified are all that changes.
#include <atomic>
#include <thread>

#include "tests/api/api_fixture.h"

namespace {

TEST(Threads, ShareAPoolFromTheFirstUse) {
    hlt_pool_spec spec = small_spec();
    spec.adapters = 40;
    spec.whiten = true;
    Bytes bytes(spec);
    std::vector<std::vector<float>> prompts;
    std::vector<Decision> expected;
    {
        PoolPtr alone = bytes.open();
        for (uint64_t seed = 0; seed < 8; seed++) {
            prompts.push_back(bytes.prompt(seed));
            expected.push_back(decision_of(route_or_fail(alone.get(), prompts.back()).get()));
        }
    }
    PoolPtr pool = bytes.open();
    std::atomic<int> wrong{0};
    std::vector<std::thread> threads;
    for (int t = 0; t < 8; t++) {
        threads.emplace_back([&, t] {
            for (size_t i = 0; i < prompts.size(); i++) {
                const size_t k = (i + static_cast<size_t>(t)) % prompts.size();
                wrong += !(decision_of(route_or_fail(pool.get(), prompts[k]).get()) == expected[k]);
            }
            uint32_t rival;
            double distance;
            hl_status status = hl_rival_at(pool.get(), 0, 0, &rival, &distance, nullptr);
            wrong += status != HL_OK && status != HL_ERR_NOT_FOUND;
            wrong += hl_pool_verify(pool.get(), nullptr, nullptr) != HL_OK;
        });
    }
    for (auto &thread : threads) {
        thread.join();
    }
    EXPECT_EQ(wrong, 0);
}

} // namespace
