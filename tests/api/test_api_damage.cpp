// Damaged and hostile files: no crash, no hang, and no flipped bit that changes a result in silence.
#include <algorithm>
#include <random>

#include "tests/api/api_fixture.h"

namespace {

// Everything that a caller can learn from a pool, as far as it answers at all. hl_pool_verify is asked apart: what it
// finds must not be needed to find out.
struct Answers {
    bool failed = false, verified = true;
    std::vector<Decision> routes;
    std::vector<std::vector<uint8_t>> tensors;
    std::string names;

    bool operator==(const Answers &other) const {
        return routes == other.routes && tensors == other.tensors && names == other.names;
    }
};

void read_tensors(const hl_pool *pool, const hl_pool_view &info, Answers *answers) {
    for (uint32_t a = 0; a < info.adapters; a++) {
        auto adapter = sized<hl_adapter_view>();
        answers->failed |= hl_adapter_at(pool, a, &adapter) != HL_OK;
        answers->names += text(adapter.name);
        std::string config(adapter.config_bytes < 4096 ? adapter.config_bytes : 0, ' ');
        answers->failed |= hl_text_read(pool, a, HL_TEXT_CONFIG, &config[0], config.size(), nullptr) != HL_OK;
        answers->names += config;
        for (uint32_t i = 0; i < adapter.modules; i++) {
            auto entry = sized<hl_entry_view>();
            auto module = sized<hl_module_view>();
            answers->failed |=
                hl_entry_at(pool, a, i, &entry) != HL_OK || hl_module_at(pool, entry.module, &module) != HL_OK;
            for (hl_side side : {HL_SIDE_A, HL_SIDE_B}) {
                uint64_t n = entry.rank * (side == HL_SIDE_A ? module.d_in : module.d_out);
                if (n > 1 << 20) {
                    answers->failed = true;
                    continue;
                }
                std::vector<uint8_t> tensor(n * 4);
                answers->failed |= hl_tensor_read(pool, a, entry.module, side, HL_DTYPE_F32, tensor.data(),
                                                  tensor.size(), nullptr) != HL_OK;
                answers->tensors.push_back(tensor);
            }
        }
    }
}

Answers ask(const Bytes &bytes, const std::vector<std::vector<float>> &prompts) {
    Answers answers;
    hl_pool *raw = nullptr;
    if (hl_pool_open_memory(bytes.pool().bytes, bytes.size(), nullptr, &raw, nullptr) != HL_OK) {
        answers.failed = true;
        return answers;
    }
    PoolPtr pool(raw);
    auto info = sized<hl_pool_view>();
    EXPECT_EQ(hl_pool_info(raw, &info), HL_OK);
    for (const auto &z : prompts) {
        hl_route *route = nullptr;
        if (hl_route_compute(raw, z.data(), z.size(), nullptr, &route, nullptr) != HL_OK) {
            answers.failed = true;
            break;
        }
        answers.routes.push_back(decision_of(route));
        hl_route_free(route);
    }
    read_tensors(raw, info, &answers);
    answers.verified = hl_pool_verify(raw, nullptr, nullptr) == HL_OK;
    return answers;
}

hlt_pool_spec tiny_spec(bool zstd, bool whiten) {
    hlt_pool_spec spec = small_spec();
    spec.adapters = 3;
    spec.modules = 2;
    spec.max_rank = 2;
    spec.max_width = 9;
    spec.dim = 11;
    spec.zstd = zstd;
    spec.whiten = whiten;
    return spec;
}

std::vector<std::vector<float>> prompts_for(const Bytes &bytes) {
    return {bytes.prompt(1), bytes.prompt(2), bytes.prompt(3)};
}

class Damage : public testing::TestWithParam<bool> {};

TEST_P(Damage, NoFlippedBitChangesAResultInSilence) {
    Bytes bytes(tiny_spec(GetParam(), GetParam()));
    const auto prompts = prompts_for(bytes);
    const Answers sound = ask(bytes, prompts);
    ASSERT_FALSE(sound.failed);
    ASSERT_TRUE(sound.verified);
    std::mt19937 random(5);
    size_t noticed = 0, flips = 0;
    for (size_t at = 0; at < bytes.size(); at += 1 + random() % 23) {
        const uint8_t bit = static_cast<uint8_t>(1u << random() % 8);
        bytes.data()[at] ^= bit;
        Answers answers = ask(bytes, prompts);
        EXPECT_TRUE(answers.failed || answers == sound) << "bit " << int(bit) << " of byte " << at;
        EXPECT_TRUE(answers == sound || !answers.verified || answers.failed);
        noticed += answers.failed || !answers.verified;
        flips++;
        bytes.data()[at] ^= bit;
    }
    EXPECT_GT(noticed, flips / 20); // most of a small file is padding
}

// Tables that lie, under checksums that hold: what only an attacker or a broken writer makes.
TEST_P(Damage, ForgedTablesAreRefusedOrHarmless) {
    Bytes bytes(tiny_spec(GetParam(), !GetParam()));
    const auto prompts = prompts_for(bytes);
    const std::vector<uint8_t> sound(bytes.data(), bytes.data() + bytes.size());
    static const uint64_t values[] = {0,
                                      1,
                                      2,
                                      3,
                                      7,
                                      64,
                                      0x7F,
                                      0xFF,
                                      0x7FFFFFFF,
                                      0xFFFFFFFF,
                                      0x100000000,
                                      UINT64_MAX,
                                      0x7FF0000000000000,
                                      0x7FF8000000000000,
                                      0xFFF0000000000000,
                                      0x8000000000000000};
    std::mt19937_64 random(GetParam());
    size_t refused = 0;
    const size_t rounds = 4000;
    for (size_t round = 0; round < rounds; round++) {
        for (uint64_t changes = 1 + random() % 3; changes; changes--) {
            // Positions that hold something, in words of 1, 2, 4 or 8 bytes.
            size_t at = random() % bytes.size() & ~size_t{7};
            for (int tries = 0; tries < 200 && std::all_of(sound.begin() + at, sound.begin() + at + 8,
                                                           [](uint8_t b) { return b == 0; });
                 tries++) {
                at = random() % (bytes.size() - 8) & ~size_t{7};
            }
            const size_t width = size_t{1} << random() % 4;
            uint64_t value = values[random() % (sizeof values / sizeof values[0])];
            if (random() % 2) {
                uint64_t old = 0;
                std::memcpy(&old, bytes.data() + at, width);
                value = old + random() % 5 - 2;
            }
            std::memcpy(bytes.data() + at, &value, std::min(width, bytes.size() - at));
        }
        hlt_pool_seal(bytes.data(), bytes.size());
        const Answers answers = ask(bytes, prompts);
        refused += answers.failed || !answers.verified;
        std::memcpy(bytes.data(), sound.data(), sound.size());
    }
    EXPECT_GT(refused, rounds / 10);
}
INSTANTIATE_TEST_SUITE_P(Codecs, Damage, testing::Bool());

} // namespace
