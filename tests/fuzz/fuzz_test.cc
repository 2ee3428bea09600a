// The kept corpus and some thousand deterministic mutations of it, through every decoder.
//
// An input that breaks a target aborts; it was written to $TUTTI_FUZZ_LAST (a file) before, to be
// kept in tests/fuzz/corpus/TARGET once it is mended. TUTTI_FUZZ_ROUNDS=N makes more of them.
#include <catch2/catch.hpp>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "protocol/base/rng.h"
#include "tests/fuzz/targets.h"

namespace tutti::fuzz {

namespace {

constexpr std::size_t kBytesMax = 4'096;

std::vector<std::string> corpus_of(const Target& target) {
  std::vector<std::string> out = target.seeds();
  const std::string folder = "tests/fuzz/corpus/" + std::string(target.name);
  std::vector<std::filesystem::path> files;
  std::error_code none;
  for (const auto& entry : std::filesystem::directory_iterator(folder, none)) {
    files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());
  for (const auto& file : files) {
    std::ostringstream text;
    text << std::ifstream(file, std::ios::binary).rdbuf();
    out.push_back(text.str());
  }
  return out;
}

// What decoders stumble over: numbers at the edge of their width, lengths, quotes.
const std::string& interesting(Rng& rng) {
  static const std::vector<std::string> kBytes = {std::string(1, '\0'),
                                                  "\xff",
                                                  "\x7f",
                                                  "\x80",
                                                  "\xdf\xff\xff\xff\xff",
                                                  "\xdd\xff\xff\xff\xff",
                                                  "\xc6\xff\xff\xff\xff",
                                                  "\xdb\x7f\xff\xff\xff",
                                                  "\xcf\xff\xff\xff\xff\xff\xff\xff\xff",
                                                  "\xd3\x80",
                                                  "{",
                                                  "}",
                                                  "[",
                                                  "]",
                                                  "\"",
                                                  "\\",
                                                  "\\ud800",
                                                  ": ",
                                                  "\n  ",
                                                  "- ",
                                                  "&a ",
                                                  "*a",
                                                  "1e999",
                                                  "-0",
                                                  "18446744073709551616",
                                                  "null",
                                                  "\xc0",
                                                  "\xef\xbb\xbf",
                                                  "!!str "};
  return kBytes[rng.below(kBytes.size())];
}

std::string mutated(std::string bytes, const std::vector<std::string>& corpus, Rng& rng) {
  const std::uint64_t changes = 1 + rng.below(4);
  for (std::uint64_t i = 0; i < changes; ++i) {
    const std::size_t at = rng.below(bytes.size() + 1);
    switch (rng.below(6)) {
      case 0:
        if (at < bytes.size()) bytes[at] = static_cast<char>(bytes[at] ^ (1 << rng.below(8)));
        break;
      case 1: bytes.resize(at); break;
      case 2: bytes.insert(at, interesting(rng)); break;
      case 3: bytes.erase(at, rng.below(9)); break;
      case 4: bytes.insert(at, bytes.substr(at, rng.below(64))); break;
      default: {
        const std::string& other = corpus[rng.below(corpus.size())];
        bytes = bytes.substr(0, at) + other.substr(std::min(at, other.size()));
      }
    }
  }
  if (bytes.size() > kBytesMax) bytes.resize(kBytesMax);
  return bytes;
}

void take(const Target& target, const std::string& bytes) {
  if (const char* last = std::getenv("TUTTI_FUZZ_LAST")) {
    std::ofstream(last, std::ios::binary) << bytes;
  }
  target.take(bytes);
}

}  // namespace

TEST_CASE("fuzz: every decoder takes its corpus and mutations of it without harm") {
  const char* wanted = std::getenv("TUTTI_FUZZ_ROUNDS");
  const std::uint64_t rounds = wanted != nullptr ? std::strtoull(wanted, nullptr, 10) : 3'000;
  for (const Target& target : targets()) {
    const std::vector<std::string> corpus = corpus_of(target);
    REQUIRE_FALSE(corpus.empty());
    for (const std::string& bytes : corpus) take(target, bytes);
    Rng rng(target.name.size() * 1'000 + corpus.size());
    for (std::uint64_t round = 0; round < rounds; ++round) {
      take(target, mutated(corpus[rng.below(corpus.size())], corpus, rng));
    }
  }
}

// The targets are no empty shells: of what each is given to begin from it takes some, and not all.
TEST_CASE("fuzz: what decoders refuse is told from what they take") {
  for (const Target& target : targets()) {
    INFO(target.name);
    CHECK(find_target(target.name) == &target);
    const std::vector<std::string> seeds = target.seeds();
    const auto taken = std::count_if(seeds.begin(), seeds.end(), target.take);
    CHECK(taken > 0);
    CHECK(static_cast<std::size_t>(taken) < seeds.size());
  }
}

}  // namespace tutti::fuzz
