// The API's codes: each is in docs/errors.md with its status, each Errc has a row there and a code
// that exists.
#include "ublkd/api/errors.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <fstream>
#include <iterator>
#include <set>

namespace ublkd::api {
namespace {

std::string errors_page() {
    std::ifstream file(UBLKD_SOURCE_DIR "/docs/errors.md");
    return {std::istreambuf_iterator<char>(file), {}};
}

TEST(ApiErrors, EachCodeIsDocumentedWithItsStatus) {
    const std::string page = errors_page();
    std::set<std::string_view> seen;
    for (const ApiCode& row : api_codes()) {
        EXPECT_TRUE(seen.insert(row.code).second) << row.code;
        EXPECT_NE(page.find(fmt::format("| `{}` | {} |", row.code, row.http_status)),
                  std::string::npos)
            << row.code;
    }
}

TEST(ApiErrors, EachErrcIsDocumentedAndHasACode) {
    const std::string page = errors_page();
    for (int i = 0; i <= static_cast<int>(Errc::kExhausted); ++i) {
        const auto errc = static_cast<Errc>(i);
        EXPECT_NE(page.find(fmt::format("| `{}` | `{}` |", to_string(errc), code_of(errc))),
                  std::string::npos)
            << to_string(errc);
        EXPECT_EQ(api_code(code_of(errc)).code, code_of(errc)) << "is in the table";
    }
}

TEST(ApiErrors, LowerErrorKeepsItsText) {
    const auto error = from_error(error_from_errno(28, "write data file"), "cannot attach pg");
    EXPECT_EQ(error.code, "InsufficientStorage");
    EXPECT_EQ(error.message,
              "cannot attach pg: write data file: no_space (No space left on device)");
}

TEST(ApiErrors, WhatWasGivenIsShownShortAndPrintable) {
    EXPECT_EQ(shown("pg"), "pg");
    EXPECT_EQ(shown("a\x1b[31m\nb\x7f"), "a?[31m?b?");
    const std::string longest(80, 'x');
    EXPECT_EQ(shown(longest), longest);
    EXPECT_TRUE(shown(longest + "x").starts_with(longest + "..."));
}

TEST(ApiErrors, UnknownCodeIsAnInternalError) { EXPECT_EQ(api_code("Nonsense").http_status, 500); }

}  // namespace
}  // namespace ublkd::api
