// Opening, describing, verifying and reading pools.
#include <algorithm>
#include <cstdio>
#include <fcntl.h>
#include <set>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/api/api_fixture.h"

extern "C" {
#include "format/header.h"
}

namespace {

std::string temporary_path(const char *name) {
    return testing::TempDir() + "hilora-" + std::to_string(getpid()) + "-" + name;
}

hl_status open_path(const std::string &path, hl_diag *diag, const hl_pool_options *options = nullptr) {
    hl_pool *pool = reinterpret_cast<hl_pool *>(&pool); // must become NULL
    *diag = clear_diag();
    hl_status status = hl_pool_open(path.c_str(), options, &pool, diag);
    EXPECT_EQ(status == HL_OK, pool != nullptr);
    EXPECT_EQ(status, diag->status);
    hl_pool_close(pool);
    return status;
}

TEST(Open, FromFileAndFromMemoryAgree) {
    Bytes bytes(small_spec());
    std::string path = temporary_path("pool.hlp");
    hlt_pool_write(&bytes.pool(), path.c_str());
    hl_pool *pool = nullptr;
    hl_diag diag = clear_diag();
    ASSERT_EQ(hl_pool_open(path.c_str(), nullptr, &pool, &diag), HL_OK) << diag.message;
    PoolPtr file(pool), memory = bytes.open();
    std::remove(path.c_str()); // the mapping holds the file
    auto a = sized<hl_pool_view>(), b = sized<hl_pool_view>();
    ASSERT_EQ(hl_pool_info(file.get(), &a), HL_OK);
    ASSERT_EQ(hl_pool_info(memory.get(), &b), HL_OK);
    EXPECT_EQ(a.adapters, 6u);
    EXPECT_EQ(a.modules, 3u);
    EXPECT_EQ(a.entries, 18u);
    EXPECT_EQ(a.dim, 20u);
    EXPECT_EQ(a.file_bytes, bytes.size());
    EXPECT_EQ(text(a.encoder), "test/encoder");
    EXPECT_EQ(text(a.prefix), "query: ");
    EXPECT_EQ(std::memcmp(a.digest, b.digest, 32), 0);
    EXPECT_EQ(hl_pool_verify(file.get(), nullptr, &diag), HL_OK) << diag.message;
    std::vector<float> z = bytes.prompt(3);
    EXPECT_TRUE(decision_of(route_or_fail(file.get(), z).get()) == decision_of(route_or_fail(memory.get(), z).get()));
}

TEST(Open, RefusesWhatIsNoPool) {
    hl_diag diag;
    EXPECT_EQ(open_path(temporary_path("missing"), &diag), HL_ERR_IO);
    EXPECT_NE(std::string(diag.message).find("cannot open"), std::string::npos);
    EXPECT_EQ(open_path(testing::TempDir(), &diag), HL_ERR_IO);
    std::string fifo = temporary_path("fifo");
    ASSERT_EQ(mkfifo(fifo.c_str(), 0600), 0);
    EXPECT_EQ(open_path(fifo, &diag), HL_ERR_IO);
    std::remove(fifo.c_str());
    EXPECT_EQ(open_path("/dev/zero", &diag), HL_ERR_IO);
    std::string other = temporary_path("other");
    for (std::string content : {"", "x", "\x89HLP\r\n\x1a\n", "\x89HDF\r\n\x1a\n"}) {
        FILE *file = std::fopen(other.c_str(), "wb");
        std::fwrite(content.data(), 1, content.size(), file);
        std::fclose(file);
        EXPECT_EQ(open_path(other, &diag),
                  content[0] == '\x89' && content[1] == 'H' && content[2] == 'L' ? HL_ERR_CORRUPT : HL_ERR_INPUT)
            << content;
        EXPECT_NE(diag.message[0], '\0');
    }
    std::remove(other.c_str());
}

TEST(Open, RefusesEveryTruncation) {
    hlt_pool_spec spec = small_spec();
    spec.adapters = 2;
    Bytes bytes(spec);
    for (size_t size = 0; size < bytes.size(); size += size < 4200 ? 1 : 997) {
        hl_pool *pool = nullptr;
        hl_diag diag = clear_diag();
        EXPECT_NE(hl_pool_open_memory(bytes.data(), size, nullptr, &pool, &diag), HL_OK) << size;
        EXPECT_EQ(pool, nullptr);
    }
}

TEST(Open, ChecksArguments) {
    Bytes bytes(small_spec());
    hl_pool *pool = nullptr;
    EXPECT_EQ(hl_pool_open(nullptr, nullptr, &pool, nullptr), HL_ERR_ARGUMENT);
    EXPECT_EQ(hl_pool_open("x", nullptr, nullptr, nullptr), HL_ERR_ARGUMENT);
    EXPECT_EQ(hl_pool_open_memory(nullptr, 1, nullptr, &pool, nullptr), HL_ERR_ARGUMENT);
    EXPECT_EQ(hl_pool_open_memory(bytes.data() + 8, bytes.size() - 8, nullptr, &pool, nullptr), HL_ERR_ARGUMENT);
    auto options = sized<hl_pool_options>();
    options.struct_size = sizeof(size_t);
    EXPECT_EQ(hl_pool_open_memory(bytes.data(), bytes.size(), &options, &pool, nullptr), HL_ERR_ARGUMENT);
    options = sized<hl_pool_options>();
    set_raw(&options.isa, 99);
    EXPECT_EQ(hl_pool_open_memory(bytes.data(), bytes.size(), &options, &pool, nullptr), HL_ERR_ARGUMENT);
    hl_pool_close(nullptr);
}

TEST(Open, OptionsOfALaterReleaseCountOnlyWhenSet) {
    struct Later {
        hl_pool_options options;
        uint64_t news;
    } later{};
    later.options.struct_size = sizeof later;
    Bytes bytes(small_spec());
    EXPECT_NE(bytes.open(&later.options), nullptr);
    later.news = 1;
    hl_pool *pool = nullptr;
    EXPECT_EQ(hl_pool_open_memory(bytes.data(), bytes.size(), &later.options, &pool, nullptr), HL_ERR_UNSUPPORTED);
}

TEST(Open, NoOptionsHaveAnUnnamedTailForALaterReleaseToMeanSomething) {
    Bytes bytes(small_spec());
    auto options = sized<hl_pool_options>();
    static_assert(offsetof(hl_pool_options, reserved) + sizeof options.reserved == sizeof options, "no padding");
    options.reserved = 1;
    hl_pool *pool = nullptr;
    EXPECT_EQ(hl_pool_open_memory(bytes.data(), bytes.size(), &options, &pool, nullptr), HL_ERR_UNSUPPORTED);

    const PoolPtr open = bytes.open();
    auto session_options = sized<hl_session_options>();
    static_assert(offsetof(hl_session_options, reserved) + sizeof(uint32_t) == sizeof session_options, "no padding");
    session_options.reserved = 1;
    hl_session *session = nullptr;
    EXPECT_EQ(hl_session_create(open.get(), &session_options, &session, nullptr), HL_ERR_UNSUPPORTED);
    hl_session_destroy(session);
    static_assert(offsetof(hl_route_options, thresholds) + sizeof(void *) == sizeof(hl_route_options), "no padding");
    static_assert(offsetof(hl_verify_options, user) + sizeof(void *) == sizeof(hl_verify_options), "no padding");
}

TEST(Open, KeepsToTheLimits) {
    Bytes bytes(small_spec());
    auto refused = [&](uint64_t hl_pool_options::*field, uint64_t least) {
        auto options = sized<hl_pool_options>();
        options.*field = least;
        EXPECT_NE(bytes.open(&options), nullptr);
        options.*field = least - 1;
        hl_pool *pool = nullptr;
        hl_status status = hl_pool_open_memory(bytes.data(), bytes.size(), &options, &pool, nullptr);
        EXPECT_TRUE(status == HL_ERR_LIMIT || status == HL_ERR_CORRUPT) << status;
    };
    refused(&hl_pool_options::max_file_bytes, bytes.size());
    refused(&hl_pool_options::max_adapters, 6);
    refused(&hl_pool_options::max_modules, 3);
    refused(&hl_pool_options::max_entries, 18);
    refused(&hl_pool_options::max_dim, 20);
}

TEST(Open, LogsToTheCallersFunction) {
    std::vector<std::string> lines;
    auto options = sized<hl_pool_options>();
    options.log_user = &lines;
    options.log = [](void *user, hl_log_level, const char *message) {
        static_cast<std::vector<std::string> *>(user)->push_back(message);
    };
    Bytes bytes(small_spec());
    bytes.open(&options);
    ASSERT_EQ(lines.size(), 1u);
    EXPECT_NE(lines[0].find("6 adapters"), std::string::npos);
}

TEST(Describe, NamesLeadBackToPositions) {
    Bytes bytes(small_spec());
    PoolPtr pool = bytes.open();
    std::string previous;
    for (uint32_t i = 0; i < 6; i++) {
        auto view = sized<hl_adapter_view>();
        ASSERT_EQ(hl_adapter_at(pool.get(), i, &view), HL_OK);
        EXPECT_LT(previous, text(view.name));
        previous = text(view.name);
        EXPECT_EQ(hl_adapter_find(pool.get(), view.name.data, view.name.size), i);
        EXPECT_EQ(view.modules, 3u);
        EXPECT_TRUE(view.flags & HL_ADAPTER_ROUTABLE);
        EXPECT_GE(view.samples, 4u);
    }
    for (uint32_t i = 0; i < 3; i++) {
        auto view = sized<hl_module_view>();
        ASSERT_EQ(hl_module_at(pool.get(), i, &view), HL_OK);
        EXPECT_EQ(hl_module_find(pool.get(), view.name.data, view.name.size), i);
        EXPECT_EQ(view.adapters, 6u);
    }
    EXPECT_EQ(hl_adapter_find(pool.get(), "nobody", 6), HL_NONE);
    EXPECT_EQ(hl_adapter_find(pool.get(), nullptr, 0), HL_NONE);
    EXPECT_EQ(hl_module_find(pool.get(), "layers.", 7), HL_NONE);
    auto adapter = sized<hl_adapter_view>();
    EXPECT_EQ(hl_adapter_at(pool.get(), 6, &adapter), HL_ERR_NOT_FOUND);
    adapter.struct_size = 8;
    EXPECT_EQ(hl_adapter_at(pool.get(), 0, &adapter), HL_ERR_ARGUMENT);
    auto module = sized<hl_module_view>();
    EXPECT_EQ(hl_module_at(pool.get(), 3, &module), HL_ERR_NOT_FOUND);
}

TEST(Describe, ALargerViewIsZeroBehindWhatIsKnown) {
    struct Later {
        hl_module_view view;
        uint64_t news;
    } later{};
    later.view.struct_size = sizeof later;
    later.news = 42;
    Bytes bytes(small_spec());
    ASSERT_EQ(hl_module_at(bytes.open().get(), 0, &later.view), HL_OK);
    EXPECT_EQ(later.news, 0u);
    EXPECT_EQ(later.view.struct_size, sizeof later);
}

TEST(Describe, EntriesByPositionAndByModule) {
    hlt_pool_spec spec = small_spec();
    spec.modules = 9;
    spec.modules_per_adapter = 4;
    Bytes bytes(spec);
    PoolPtr pool = bytes.open();
    for (uint32_t a = 0; a < spec.adapters; a++) {
        std::set<uint32_t> modules;
        uint64_t rocs = 0;
        uint32_t rank = 0;
        for (uint32_t i = 0; i < 4; i++) {
            auto at = sized<hl_entry_view>(), found = sized<hl_entry_view>();
            ASSERT_EQ(hl_entry_at(pool.get(), a, i, &at), HL_OK);
            ASSERT_EQ(hl_entry_find(pool.get(), a, at.module, &found), HL_OK);
            EXPECT_EQ(at.rank, found.rank);
            EXPECT_EQ(at.scale, found.scale);
            EXPECT_EQ(at.stored_dtype_b, found.stored_dtype_b);
            modules.insert(at.module);
            rocs += at.rank;
            rank = std::max(rank, at.rank);
        }
        auto adapter = sized<hl_adapter_view>();
        ASSERT_EQ(hl_adapter_at(pool.get(), a, &adapter), HL_OK);
        EXPECT_EQ(adapter.rocs, rocs);
        EXPECT_EQ(adapter.rank, rank);
        EXPECT_EQ(modules.size(), 4u);
        auto entry = sized<hl_entry_view>();
        EXPECT_EQ(hl_entry_at(pool.get(), a, 4, &entry), HL_ERR_NOT_FOUND);
        for (uint32_t m = 0; m < 9; m++) {
            EXPECT_EQ(hl_entry_find(pool.get(), a, m, &entry), modules.count(m) ? HL_OK : HL_ERR_NOT_FOUND);
        }
    }
    auto entry = sized<hl_entry_view>();
    EXPECT_EQ(hl_entry_at(pool.get(), spec.adapters, 0, &entry), HL_ERR_NOT_FOUND);
    EXPECT_EQ(hl_entry_find(pool.get(), spec.adapters, 0, &entry), HL_ERR_NOT_FOUND);
}

TEST(Describe, RivalsEndWhereTheTableSaysSo) {
    Bytes bytes(small_spec());
    PoolPtr pool = bytes.open();
    uint32_t rival = 0, found = 0;
    double distance = 0;
    for (uint32_t a = 0; a < 6; a++) {
        for (uint32_t k = 0; k < 2; k++) {
            hl_status status = hl_rival_at(pool.get(), a, k, &rival, &distance, nullptr);
            EXPECT_TRUE(status == HL_OK || status == HL_ERR_NOT_FOUND);
            found += status == HL_OK && rival < 6 && distance >= 0;
        }
        EXPECT_EQ(hl_rival_at(pool.get(), a, 2, &rival, &distance, nullptr), HL_ERR_NOT_FOUND);
    }
    EXPECT_GT(found, 5u);
}

TEST(Describe, SizesAddUp) {
    for (bool zstd : {false, true}) {
        hlt_pool_spec spec = small_spec();
        spec.zstd = zstd;
        Bytes bytes(spec);
        PoolPtr pool = bytes.open();
        auto sizes = sized<hl_pool_sizes>();
        ASSERT_EQ(hl_pool_measure(pool.get(), &sizes), HL_OK);
        uint64_t stored = 0;
        for (uint32_t a = 0; a < spec.adapters; a++) {
            auto adapter = sized<hl_adapter_view>();
            ASSERT_EQ(hl_adapter_at(pool.get(), a, &adapter), HL_OK);
            stored += adapter.stored_bytes;
        }
        EXPECT_EQ(sizes.weights + sizes.gauges, stored);
        EXPECT_GE(sizes.weights_source, sizes.weights_plain);
        if (!zstd) {
            EXPECT_EQ(sizes.weights, sizes.weights_plain);
            EXPECT_EQ(sizes.gauges, sizes.gauges_plain);
        }
        EXPECT_LT(sizes.tables + sizes.statistics + sizes.texts + sizes.weights + sizes.gauges, bytes.size());
    }
}

// ---- contents ----

class Contents : public testing::TestWithParam<bool> {};

TEST_P(Contents, TensorsComeOutAsTheyWentIn) {
    hlt_pool_spec spec = small_spec();
    spec.zstd = GetParam();
    Bytes bytes(spec);
    PoolPtr pool = bytes.open();
    const size_t widths[] = {0, 2, 2, 4, 8};
    for (uint32_t a = 0; a < spec.adapters; a++) {
        for (uint32_t m = 0; m < spec.modules; m++) {
            auto entry = sized<hl_entry_view>();
            auto module = sized<hl_module_view>();
            ASSERT_EQ(hl_entry_find(pool.get(), a, m, &entry), HL_OK);
            ASSERT_EQ(hl_module_at(pool.get(), m, &module), HL_OK);
            for (hl_side side : {HL_SIDE_A, HL_SIDE_B}) {
                hl_dtype source = side == HL_SIDE_A ? entry.dtype_a : entry.dtype_b;
                hl_dtype stored = side == HL_SIDE_A ? entry.stored_dtype_a : entry.stored_dtype_b;
                size_t n = entry.rank * static_cast<size_t>(side == HL_SIDE_A ? module.d_in : module.d_out);
                for (hl_dtype dtype : {source, stored, HL_DTYPE_F64}) {
                    std::vector<uint8_t> expected(n * widths[dtype]), got(n * widths[dtype]);
                    hlt_fill(expected.data(), dtype, stored, n, spec.seed, a, m, side);
                    hl_diag diag = clear_diag();
                    ASSERT_EQ(hl_tensor_read(pool.get(), a, m, side, dtype, got.data(), got.size(), &diag), HL_OK)
                        << diag.message;
                    EXPECT_EQ(got, expected)
                        << "adapter " << a << " module " << m << " side " << side << " dtype " << dtype;
                }
            }
        }
    }
}

TEST_P(Contents, TextsComeOutAsTheyWentIn) {
    hlt_pool_spec spec = small_spec();
    spec.zstd = GetParam();
    Bytes bytes(spec);
    PoolPtr pool = bytes.open();
    for (uint32_t a = 0; a < spec.adapters; a++) {
        auto adapter = sized<hl_adapter_view>();
        ASSERT_EQ(hl_adapter_at(pool.get(), a, &adapter), HL_OK);
        std::string config(adapter.config_bytes, ' ');
        ASSERT_EQ(hl_text_read(pool.get(), a, HL_TEXT_CONFIG, &config[0], config.size(), nullptr), HL_OK);
        EXPECT_EQ(config, "{\"lora_alpha\": 16, \"r\": 8, \"seed\": " + std::to_string(a) + "}");
    }
}
INSTANTIATE_TEST_SUITE_P(Codecs, Contents, testing::Bool());

TEST(Contents, ChecksArguments) {
    Bytes bytes(small_spec());
    PoolPtr pool = bytes.open();
    std::vector<char> buffer(1 << 16);
    auto read = [&](uint32_t adapter, uint32_t module, hl_side side, hl_dtype dtype, size_t size) {
        return hl_tensor_read(pool.get(), adapter, module, side, dtype, buffer.data(), size, nullptr);
    };
    EXPECT_EQ(read(6, 0, HL_SIDE_A, HL_DTYPE_F32, 4), HL_ERR_NOT_FOUND);
    EXPECT_EQ(read(0, 3, HL_SIDE_A, HL_DTYPE_F32, 4), HL_ERR_NOT_FOUND);
    EXPECT_EQ(read(0, 0, HL_SIDE_A, static_cast<hl_dtype>(7), 4), HL_ERR_ARGUMENT);
    EXPECT_EQ(read(0, 0, HL_SIDE_A, HL_DTYPE_F32, 3), HL_ERR_ARGUMENT);
    EXPECT_EQ(hl_text_read(pool.get(), 6, HL_TEXT_CONFIG, buffer.data(), 1, nullptr), HL_ERR_NOT_FOUND);
    EXPECT_EQ(hl_text_read(pool.get(), 0, HL_TEXT_CONFIG, buffer.data(), 1, nullptr), HL_ERR_ARGUMENT);
}

TEST(Contents, KeepsToTheLimitOnDecodedBytes) {
    Bytes bytes(small_spec());
    auto options = sized<hl_pool_options>();
    options.max_chunk_bytes = 8;
    PoolPtr pool = bytes.open(&options);
    auto entry = sized<hl_entry_view>();
    auto module = sized<hl_module_view>();
    ASSERT_EQ(hl_entry_find(pool.get(), 0, 0, &entry), HL_OK);
    ASSERT_EQ(hl_module_at(pool.get(), 0, &module), HL_OK);
    std::vector<double> buffer(entry.rank * module.d_in);
    EXPECT_EQ(hl_tensor_read(pool.get(), 0, 0, HL_SIDE_A, HL_DTYPE_F64, buffer.data(), buffer.size() * 8, nullptr),
              HL_ERR_LIMIT);
    EXPECT_EQ(hl_pool_verify(pool.get(), nullptr, nullptr), HL_ERR_LIMIT);
}

// ---- verifying ----

TEST(Verify, ReportsEveryFault) {
    Bytes bytes(small_spec());
    PoolPtr pool = bytes.open();
    auto options = sized<hl_verify_options>();
    std::vector<std::string> faults;
    options.user = &faults;
    options.report = [](void *user, const hl_diag *fault) {
        static_cast<std::vector<std::string> *>(user)->push_back(fault->message);
    };
    EXPECT_EQ(hl_pool_verify(pool.get(), &options, nullptr), HL_OK);
    EXPECT_TRUE(faults.empty());
    bytes.data()[bytes.size() - 1] ^= 1; // the last chunk
    hl_diag diag = clear_diag();
    EXPECT_EQ(hl_pool_verify(pool.get(), &options, &diag), HL_ERR_CORRUPT);
    ASSERT_EQ(faults.size(), 1u);
    EXPECT_NE(diag.offset, HL_NO_OFFSET);
    bytes.data()[bytes.size() / 2] ^= 1; // somewhere in the statistics
    faults.clear();
    diag = clear_diag();
    EXPECT_EQ(hl_pool_verify(pool.get(), &options, &diag), HL_ERR_CORRUPT);
    ASSERT_GE(faults.size(), 3u); // its section, the adapter's part of it, the digest, and the chunk as before
    EXPECT_EQ(faults[0], diag.message);
    EXPECT_EQ(hl_pool_verify(nullptr, nullptr, nullptr), HL_ERR_ARGUMENT);
}

TEST(Verify, ChecksWhatNoUseDoes) {
    Bytes bytes(small_spec());
    hlf_header header;
    ASSERT_EQ(hlf_header_parse(bytes.data(), bytes.size(), bytes.size(), &header, nullptr), HL_OK);
    uint8_t *importance = bytes.data() + header.sections[HLF_SECTION_IMPORTANCE].offset;
    hl_diag diag = clear_diag();
    importance[0] ^= 1; // still a number that could be
    EXPECT_EQ(hl_pool_verify(bytes.open().get(), nullptr, &diag), HL_ERR_CORRUPT);
    EXPECT_EQ(diag.offset, header.sections[HLF_SECTION_IMPORTANCE].offset);
    importance[0] ^= 1;
    header.digest[3] ^= 1;
    hlf_header_encode(&header, bytes.data());
    diag = clear_diag();
    EXPECT_EQ(hl_pool_verify(bytes.open().get(), nullptr, &diag), HL_ERR_CORRUPT);
    EXPECT_EQ(diag.offset, static_cast<uint64_t>(HLF_AT_DIGEST));
    header.digest[3] ^= 1;
    hlf_header_encode(&header, bytes.data());
    EXPECT_EQ(hl_pool_verify(bytes.open().get(), nullptr, nullptr), HL_OK);
}

TEST(Version, IsThatOfTheProject) {
    EXPECT_EQ(std::string(hl_version()), "0.1.0");
    EXPECT_EQ(std::string(hl_status_name(HL_ERR_CORRUPT)), "corrupt");
}

} // namespace
