#include "jobs/data/text.h"

#include <catch2/catch.hpp>

#include <thread>

#include "jobs/data/npy.h"
#include "jobs/tokenizers/tokenizer.h"
#include "protocol/base/file.h"
#include "tests/support/temporary_folder.h"

namespace tutti::data {
namespace {

std::string sample_text() {
  std::string text;
  for (int i = 0; i < 400; ++i) text += "line " + std::to_string(i * i) + " of the sample\n";
  return text;
}

std::vector<std::uint32_t> tokens_in(const std::string& path) {
  const auto file = TokenFile::open(path);
  REQUIRE(file);
  std::vector<std::uint32_t> tokens(file->size());
  file->copy(0, tokens);
  return tokens;
}

TEST_CASE("text: tokens decode to the text, with an end-of-text token after each file") {
  const test::TemporaryFolder folder;
  const std::string first = (folder.path() / "a.txt").string();
  const std::string second = (folder.path() / "b.txt").string();
  REQUIRE(write_file_atomically(first, sample_text()));
  REQUIRE(write_file_atomically(second, "the end"));
  const TextOptions options{.text = {first, second},
                            .tokenizer = "",
                            .vocabulary = 320,
                            .folder = (folder.path() / "job").string()};
  const auto made = tokenize_text(options);
  REQUIRE(made);
  const auto tokenizer = tokenizers::Tokenizer::load(made->tokenizer);
  REQUIRE(tokenizer);
  CHECK(tokenizer->vocabulary() == 320);
  CHECK(tokenizer->decode(tokens_in(made->tokens), tokenizers::SpecialTokens::as_text) ==
        sample_text() + "<|endoftext|>the end<|endoftext|>");

  SECTION("what is there stays, though the text changes") {
    REQUIRE(write_file_atomically(first, "something else"));
    const auto before = tokens_in(made->tokens);
    REQUIRE(tokenize_text(options));
    CHECK(tokens_in(made->tokens) == before);
  }
  SECTION("a given tokenizer is used and copied") {
    TextOptions other = options;
    other.tokenizer = made->tokenizer;
    other.folder = (folder.path() / "other").string();
    const auto again = tokenize_text(other);
    REQUIRE(again);
    CHECK(*read_file(again->tokenizer) == *read_file(made->tokenizer));
    CHECK(tokens_in(again->tokens) == tokens_in(made->tokens));
    other.vocabulary = 319;
    CHECK(tokenize_text({other.text, other.tokenizer, 319, (folder.path() / "c").string()})
              .error()
              .message.find("has 320 tokens, the model a vocabulary of 319") != std::string::npos);
  }
}

TEST_CASE("text: ranks that tokenize at the same time leave one whole file of the same bytes") {
  const test::TemporaryFolder folder;
  const std::string text = (folder.path() / "a.txt").string();
  REQUIRE(write_file_atomically(text, sample_text()));
  const auto options = [&](const char* name) {
    return TextOptions{{text}, "", 300, (folder.path() / name).string()};
  };
  std::vector<std::thread> ranks;
  std::vector<int> ok(4, 0);
  for (int& each : ok) {
    ranks.emplace_back([&] { each = tokenize_text(options("together")).ok() ? 1 : 0; });
  }
  for (std::thread& rank : ranks) rank.join();
  CHECK(ok == std::vector<int>(4, 1));
  const auto alone = tokenize_text(options("alone"));
  REQUIRE(alone);
  CHECK(*read_file(alone->tokens) == *read_file(folder.path() / "together" / "tokens.npy"));
  CHECK(std::distance(std::filesystem::directory_iterator(folder.path() / "together"), {}) == 2);
}

TEST_CASE("text: a missing, an empty and a too short text are clear errors") {
  const test::TemporaryFolder folder;
  const std::string empty = (folder.path() / "empty.txt").string();
  REQUIRE(write_file_atomically(empty, ""));
  const auto error_of = [&](std::vector<std::string> text) {
    const auto made = tokenize_text({std::move(text), "", 2'048, (folder.path() / "job").string()});
    REQUIRE_FALSE(made);
    return made.error();
  };
  CHECK(error_of({"/none.txt"}).code == ErrorCode::not_found);
  CHECK(error_of({empty}).message.find("empty.txt is empty") != std::string::npos);
  CHECK(error_of({}).code == ErrorCode::invalid_argument);
  const std::string few = (folder.path() / "few.txt").string();
  REQUIRE(write_file_atomically(few, "few words"));
  CHECK(error_of({few}).message.find("larger than the text allows") != std::string::npos);
}

}  // namespace
}  // namespace tutti::data
