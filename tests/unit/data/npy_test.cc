#include "jobs/data/npy.h"

#include <catch2/catch.hpp>

#include <numeric>
#include <vector>

#include "protocol/base/file.h"
#include "tests/support/temporary_folder.h"

namespace tutti::data {
namespace {

const std::string kGolden = "tests/unit/data/golden/";

std::vector<std::uint32_t> all_of(const TokenFile& file) {
  std::vector<std::uint32_t> tokens(file.size());
  file.copy(0, tokens);
  return tokens;
}

TEST_CASE("token file: what NumPy wrote is read") {
  const auto u2 = TokenFile::open(kGolden + "u2.npy");
  REQUIRE(u2);
  REQUIRE(u2->size() == 300);
  CHECK(all_of(*u2)[299] == 299 * 7 % 301);
  const auto u4 = TokenFile::open(kGolden + "u4.npy");
  REQUIRE(u4);
  CHECK(all_of(*u4) == std::vector<std::uint32_t>{0, 70000, 4294967295});
  const auto i4 = TokenFile::open(kGolden + "i4.npy");
  REQUIRE(i4);
  CHECK(i4->type() == TokenType::int32);
  CHECK(i4->find_outside(0, 3, 100) == 1);  // -1
}

TEST_CASE("token file: other shapes, types and byte orders are refused by name") {
  for (const char* name : {"i8.npy", "matrix.npy", "big_endian.npy"}) {
    INFO(name);
    const auto file = TokenFile::open(kGolden + name);
    REQUIRE_FALSE(file);
    CHECK(file.error().code == ErrorCode::invalid_argument);
    CHECK(file.error().message.find(name) != std::string::npos);
  }
  CHECK(TokenFile::open(kGolden + "none.npy").error().code == ErrorCode::not_found);
  CHECK(TokenFile::open(kGolden).error().code == ErrorCode::invalid_argument);
}

TEST_CASE("token file: a file cut short anywhere is an error, never a crash") {
  const test::TemporaryFolder folder;
  const auto whole = read_file(kGolden + "u2.npy");
  REQUIRE(whole);
  const std::string path = (folder.path() / "cut.npy").string();
  for (std::size_t size = 0; size < whole->size(); size += size < 140 ? 1 : 97) {
    REQUIRE(write_file_atomically(path, whole->substr(0, size)));
    CHECK(TokenFile::open(path).error().code == ErrorCode::invalid_argument);
  }
}

TEST_CASE("token file: a damaged header is an error, never a crash") {
  const test::TemporaryFolder folder;
  const auto whole = read_file(kGolden + "u4.npy");
  REQUIRE(whole);
  const std::string path = (folder.path() / "damaged.npy").string();
  for (std::size_t at = 0; at < 80; ++at) {
    std::string damaged = *whole;
    damaged[at] = static_cast<char>(damaged[at] ^ 0x11);
    REQUIRE(write_file_atomically(path, damaged));
    const auto file = TokenFile::open(path);
    if (file) CHECK(file->size() <= 3);
  }
}

TEST_CASE("token file: written tokens come back, as narrow as their largest id allows") {
  const test::TemporaryFolder folder;
  const std::string path = (folder.path() / "tokens.npy").string();
  std::vector<std::uint32_t> tokens(10'000);
  std::iota(tokens.begin(), tokens.end(), 0U);
  REQUIRE(write_token_file(path, tokens));
  auto file = TokenFile::open(path);
  REQUIRE(file);
  CHECK(file->type() == TokenType::uint16);
  CHECK(all_of(*file) == tokens);
  CHECK(file->find_outside(0, tokens.size(), 9'999) == 9'999);
  CHECK(file->find_outside(5'000, 100, 9'999) == 5'100);
  tokens.push_back(65'536);
  REQUIRE(write_token_file(path, tokens));
  file = TokenFile::open(path);
  REQUIRE(file);
  CHECK(file->type() == TokenType::uint32);
  CHECK(all_of(*file) == tokens);
  CHECK(read_file(path)->size() % 64 == (10'001 * 4) % 64);  // data aligned, as NumPy does
}

}  // namespace
}  // namespace tutti::data
