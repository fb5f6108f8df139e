// The little that the tests need of a framework: a check that counts and names what failed.
#pragma once

#include <cstdio>
#include <stdexcept>
#include <string>

namespace quarry::test {

inline int n_failures = 0;

// Says what failed; after a few hundred only counts, so that a broken kernel does not fill the disk.
inline void fail(const char* file, int line, const char* condition, const std::string& detail) {
    constexpr int kShown = 200;
    if (++n_failures <= kShown) std::printf("%s:%d: %s  %s\n", file, line, condition, detail.c_str());
}

// What main() returns.
inline int report(const char* name) {
    std::printf("%s: %d failed\n", name, n_failures);
    return n_failures == 0 ? 0 : 1;
}

}  // namespace quarry::test

// CHECK(condition) or CHECK(condition, detail): `detail` is a string that names the case.
#define CHECK(condition, ...)                                                                             \
    do {                                                                                                  \
        if (!(condition)) ::quarry::test::fail(__FILE__, __LINE__, #condition, std::string(__VA_ARGS__)); \
    } while (false)

// Checks that `statement` throws Exception and that its message holds `part`.
#define CHECK_THROWS(statement, Exception, part)                                              \
    do {                                                                                      \
        std::string said = "nothing was thrown";                                              \
        bool right = false;                                                                   \
        try {                                                                                 \
            static_cast<void>(statement);                                                     \
        } catch (const Exception& error) {                                                    \
            said = error.what();                                                              \
            right = said.find(part) != std::string::npos;                                     \
        }                                                                                     \
        if (!right)                                                                           \
            ::quarry::test::fail(__FILE__, __LINE__, #statement,                              \
                                 "expected '" + std::string(part) + "', got '" + said + "'"); \
    } while (false)
