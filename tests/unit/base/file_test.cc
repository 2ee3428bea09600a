#include "protocol/base/file.h"

#include <catch2/catch.hpp>

#include <filesystem>

#include "tests/support/temporary_folder.h"

namespace tutti {
namespace {

TEST_CASE("file: an atomic write replaces the content and leaves nothing beside it") {
  const test::TemporaryFolder folder;
  const auto path = folder.path() / "a";
  REQUIRE(write_file_atomically(path, "one"));
  REQUIRE(write_file_atomically(path, "two", 0600));
  const auto content = read_file(path);
  REQUIRE(content);
  CHECK(*content == "two");
  CHECK((std::filesystem::status(path).permissions() & std::filesystem::perms::mask) ==
        (std::filesystem::perms::owner_read | std::filesystem::perms::owner_write));
  CHECK(std::distance(std::filesystem::directory_iterator(folder.path()), {}) == 1);
}

TEST_CASE("file: a missing file, a folder and a file over the limit are named errors") {
  const test::TemporaryFolder folder;
  CHECK(read_file(folder.path() / "none").error().code == ErrorCode::not_found);
  CHECK(read_file(folder.path()).error().code == ErrorCode::invalid_argument);
  REQUIRE(write_file_atomically(folder.path() / "big", "12345"));
  CHECK(read_file(folder.path() / "big", 4).error().code == ErrorCode::exhausted);
  CHECK(write_file_atomically(folder.path() / "none" / "x", "").error().code ==
        ErrorCode::not_found);
}

}  // namespace
}  // namespace tutti
