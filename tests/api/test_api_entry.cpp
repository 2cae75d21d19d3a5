// The plugin entry as an engine uses it: this program does not link libhilora, it loads it and looks up one name.
#include <dlfcn.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <hilora/hilora.h>

#include "tests/support/pool_builder.h"

namespace {

using GetApi = const hl_api *(*)(uint32_t);

// A function's address from the loader, without a cast that C++ forbids.
GetApi entry_of(void *library) {
    GetApi get = nullptr;
    void *symbol = dlsym(library, "hl_api_get");
    static_assert(sizeof get == sizeof symbol, "POSIX: a function fits a pointer to data");
    std::memcpy(&get, &symbol, sizeof get);
    return get;
}

class Entry : public testing::Test {
  protected:
    void SetUp() override {
        library_ = dlopen(HILORA_LIBRARY, RTLD_NOW | RTLD_LOCAL);
        ASSERT_NE(library_, nullptr) << dlerror();
        get = entry_of(library_);
        ASSERT_NE(get, nullptr) << dlerror();
    }
    void TearDown() override {
        if (library_) {
            dlclose(library_);
        }
    }
    GetApi get = nullptr;

  private:
    void *library_ = nullptr;
};

TEST_F(Entry, KnowsItsVersionsAndNoOthers) {
    for (uint32_t version = 1; version <= HILORA_API_VERSION; version++) {
        const hl_api *api = get(version);
        ASSERT_NE(api, nullptr) << version;
        EXPECT_EQ(api->api_version, version);
        EXPECT_LE(api->struct_size, sizeof(hl_api));
        EXPECT_EQ(api->reserved, 0U);
        EXPECT_EQ(get(version), api);
    }
    EXPECT_EQ(get(HILORA_API_VERSION)->struct_size, sizeof(hl_api));
    EXPECT_EQ(get(0), nullptr);
    EXPECT_EQ(get(HILORA_API_VERSION + 1), nullptr);
    EXPECT_EQ(get(UINT32_MAX), nullptr);
}

// Version 1 is frozen: what an engine was built against stays where it was.
TEST_F(Entry, VersionOneKeepsItsLayout) {
    EXPECT_EQ(offsetof(hl_api, version), 16U);
    EXPECT_EQ(offsetof(hl_api, pool_open), 16 + 3 * sizeof(void *));
    EXPECT_EQ(offsetof(hl_api, lora_at), 16 + 36 * sizeof(void *));
}

TEST_F(Entry, EveryMemberIsThere) {
    const hl_api *api = get(HILORA_API_VERSION);
    const unsigned char *bytes = reinterpret_cast<const unsigned char *>(api);
    for (size_t at = offsetof(hl_api, version); at < api->struct_size; at += sizeof(void *)) {
        void *member = nullptr;
        std::memcpy(&member, bytes + at, sizeof member);
        EXPECT_NE(member, nullptr) << at;
    }
}

template <typename T> T sized() {
    T value;
    std::memset(static_cast<void *>(&value), 0, sizeof value);
    value.struct_size = sizeof value;
    return value;
}

TEST_F(Entry, RoutesAndAppliesThroughTheTableAlone) {
    const hl_api *api = get(1);
    hlt_pool_spec spec{};
    spec.seed = 11;
    spec.adapters = 4;
    spec.modules = 2;
    spec.min_rank = 2;
    spec.max_rank = 4;
    spec.min_width = 8;
    spec.max_width = 8;
    spec.dim = 12;
    spec.min_samples = 4;
    spec.max_samples = 8;
    spec.zstd = true;
    hlt_pool bytes = hlt_pool_build(&spec);
    std::vector<float> z(spec.dim);
    hlt_embedding(&spec, &bytes, 5, z.data());

    hl_diag diag;
    api->diag_clear(&diag);
    hl_pool *pool = nullptr;
    ASSERT_EQ(api->pool_open_memory(bytes.bytes, bytes.size, nullptr, &pool, &diag), HL_OK) << diag.message;
    auto options = sized<hl_route_options>();
    options.gamma = 1;
    options.select = HL_SELECT_TOP_K;
    options.k = 1;
    hl_route *route = nullptr;
    ASSERT_EQ(api->route_compute(pool, z.data(), z.size(), &options, &route, &diag), HL_OK) << diag.message;
    hl_session *session = nullptr;
    ASSERT_EQ(api->session_create(pool, nullptr, &session, &diag), HL_OK) << diag.message;
    const hl_route *routes[] = {route};
    ASSERT_EQ(api->session_prepare(session, routes, 1, &diag), HL_OK) << diag.message;

    // y += sum_j b_j (a_j . x): the table's rows against the table's apply.
    auto item = sized<hl_route_item>();
    ASSERT_EQ(api->route_item_at(route, 0, &item), HL_OK);
    auto entry = sized<hl_entry_view>();
    ASSERT_EQ(api->entry_at(pool, item.adapter, 0, &entry), HL_OK);
    auto module = sized<hl_module_view>();
    ASSERT_EQ(api->module_at(pool, entry.module, &module), HL_OK);
    std::vector<float> a(entry.rank * module.d_in), b(entry.rank * module.d_out), x(module.d_in, 0.5F);
    std::vector<float> y(module.d_out, 1.0F), expected(module.d_out, 1.0F);
    ASSERT_EQ(api->tensor_read(pool, item.adapter, entry.module, HL_SIDE_A, HL_DTYPE_F32, a.data(),
                               a.size() * sizeof(float), &diag),
              HL_OK);
    ASSERT_EQ(api->tensor_read(pool, item.adapter, entry.module, HL_SIDE_B, HL_DTYPE_F32, b.data(),
                               b.size() * sizeof(float), &diag),
              HL_OK);
    for (size_t j = 0; j < entry.rank; j++) {
        float u = 0;
        for (size_t i = 0; i < module.d_in; i++) {
            u += a[j * module.d_in + i] * x[i];
        }
        for (size_t o = 0; o < module.d_out; o++) {
            expected[o] += static_cast<float>(entry.scale) * u * b[j * module.d_out + o];
        }
    }
    ASSERT_EQ(api->session_apply(session, entry.module, 1, x.data(), x.size(), nullptr, y.data(), y.size(),
                                 HL_DTYPE_F32, &diag),
              HL_OK);
    for (size_t o = 0; o < module.d_out; o++) {
        EXPECT_NEAR(y[o], expected[o], 2e-3F * std::abs(expected[o] - 1) + 1e-6F) << o; // 16-bit rows: 3e-4 of a norm
    }
    EXPECT_NE(y[0], 1.0F);

    api->session_destroy(session);
    api->route_free(route);
    api->pool_close(pool);
    hlt_pool_free(&bytes);
}

// A pool that is replaced by rename goes on, whole, until it is closed; opening the path again gives the new one.
TEST_F(Entry, AReplacedPoolGoesOnUntilItIsClosed) {
    const hl_api *api = get(1);
    char folder[] = "/tmp/hilora-entry-XXXXXX";
    ASSERT_NE(mkdtemp(folder), nullptr);
    const std::string path = std::string(folder) + "/pool.hlp", fresh = path + ".new";
    hlt_pool_spec spec{};
    spec.seed = 3;
    spec.adapters = 3;
    spec.modules = 2;
    spec.min_rank = spec.max_rank = 4;
    spec.min_width = spec.max_width = 16;
    spec.dim = 8;
    spec.min_samples = spec.max_samples = 5;
    for (int version = 0; version < 2; version++) {
        spec.seed++;
        hlt_pool bytes = hlt_pool_build(&spec);
        std::ofstream(version ? fresh : path, std::ios::binary)
            .write(reinterpret_cast<const char *>(bytes.bytes), static_cast<std::streamsize>(bytes.size));
        hlt_pool_free(&bytes);
    }
    hl_pool *old_pool = nullptr, *new_pool = nullptr;
    auto old_view = sized<hl_pool_view>(), new_view = sized<hl_pool_view>();
    ASSERT_EQ(api->pool_open(path.c_str(), nullptr, &old_pool, nullptr), HL_OK);
    ASSERT_EQ(std::rename(fresh.c_str(), path.c_str()), 0);
    EXPECT_EQ(api->pool_verify(old_pool, nullptr, nullptr), HL_OK); // reads all of it, which nothing had read before
    ASSERT_EQ(api->pool_open(path.c_str(), nullptr, &new_pool, nullptr), HL_OK);
    ASSERT_EQ(api->pool_info(old_pool, &old_view), HL_OK);
    ASSERT_EQ(api->pool_info(new_pool, &new_view), HL_OK);
    EXPECT_NE(std::memcmp(old_view.digest, new_view.digest, sizeof old_view.digest), 0);
    api->pool_close(old_pool);
    EXPECT_EQ(api->pool_verify(new_pool, nullptr, nullptr), HL_OK);
    api->pool_close(new_pool);
    std::remove(path.c_str());
    rmdir(folder);
}

} // namespace
