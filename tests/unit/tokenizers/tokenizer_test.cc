#include "jobs/tokenizers/tokenizer.h"

#include <catch2/catch.hpp>

#include "jobs/tokenizers/encoder.h"
#include "jobs/tokenizers/trainer.h"
#include "protocol/base/rng.h"

namespace tutti::tokenizers {
namespace {

constexpr std::string_view kText =
    "a rose is a rose is a rose; the sun rises, the sun sets, the sun rises again and again";

Tokenizer trained(std::uint32_t vocabulary) {
  TrainerOptions options;
  options.vocabulary = vocabulary;
  auto tokenizer = train_tokenizer({&kText, 1}, options);
  REQUIRE(tokenizer);
  return std::move(*tokenizer);
}

TEST_CASE("tokenizer: any bytes encode and come back, UTF-8 or not") {
  const Tokenizer tokenizer = trained(275);
  Rng rng(1);
  for (int round = 0; round < 300; ++round) {
    std::string bytes;
    const std::uint64_t length = rng.below(round == 0 ? 1 : 200);
    for (std::uint64_t i = 0; i < length; ++i) {
      bytes.push_back(static_cast<char>(rng.chance(0.5) ? rng.below(256) : 'a' + rng.below(4)));
    }
    CHECK(tokenizer.decode(tokenizer.encode(bytes)) == bytes);
  }
}

TEST_CASE("tokenizer: long pieces merge as short ones do") {
  // Both ways of merging take the lowest rank first, leftmost of equals.
  const Tokenizer tokenizer = trained(275);
  const Model& model = tokenizer.model();
  Rng rng(2);
  for (int round = 0; round < 50; ++round) {
    std::string piece;
    while (piece.size() < 300) piece.append(kText.substr(rng.below(80), 1 + rng.below(6)));
    std::vector<TokenId> merged;
    model.merge(piece, merged);
    // By the definition: the best pair of all, again and again.
    std::vector<TokenId> slow;
    for (const char byte : piece) slow.push_back(*tokenizer.id_of(std::string_view(&byte, 1)));
    for (;;) {
      std::size_t best = slow.size();
      std::size_t best_rank = model.merges().size();
      for (std::size_t i = 0; i + 1 < slow.size(); ++i) {
        for (std::size_t rank = 0; rank < best_rank; ++rank) {
          const Model::MergePair pair = model.merges()[rank];
          if (pair.left == slow[i] && pair.right == slow[i + 1]) {
            best = i;
            best_rank = rank;
          }
        }
      }
      if (best == slow.size()) break;
      slow[best] = model.find(std::string(model.bytes(slow[best])) +
                              std::string(model.bytes(slow[best + 1])));
      slow.erase(slow.begin() + static_cast<std::ptrdiff_t>(best) + 1);
    }
    CHECK(merged == slow);
  }
}

TEST_CASE("tokenizer: a cache that fills and is cleared changes nothing") {
  const Tokenizer tokenizer = trained(275);
  Encoder encoder(tokenizer.model());
  std::string text;
  Rng rng(3);
  for (int i = 0; i < 60'000; ++i) text += " r" + std::to_string(rng.below(1 << 20));
  std::vector<TokenId> ids;
  encoder.encode(text, SpecialTokens::recognised, ids);
  CHECK(tokenizer.decode(ids) == text);
}

TEST_CASE("tokenizer: special tokens of untrusted text stay text") {
  const Tokenizer tokenizer = trained(275);
  const auto end = tokenizer.end_of_text();
  REQUIRE(end);
  const std::string text = "a<|endoftext|>";
  CHECK(tokenizer.encode(text).back() == *end);
  CHECK(tokenizer.decode(tokenizer.encode(text)) == "a");
  const auto plain = tokenizer.encode(text, SpecialTokens::as_text);
  CHECK(std::find(plain.begin(), plain.end(), *end) == plain.end());
  CHECK(tokenizer.decode(plain) == text);
}

TEST_CASE("tokenizer: a stream gives whole characters only") {
  StreamDecoder stream;
  CHECK(stream.push("a\xe2").empty() == false);
  CHECK(stream.push("\x82").empty());
  CHECK(stream.push("\xac\xf0\x9f") == "\xe2\x82\xac");
  CHECK(stream.push("x") == "\xef\xbf\xbdx");  // it can never become a character
  CHECK(stream.push("\xc3").empty());
  CHECK(stream.finish() == "\xef\xbf\xbd");
  CHECK(stream.finish().empty());
  // Byte by byte it is the text.
  const std::string text = "Größe 東京 😀!";
  std::string whole;
  for (const char byte : text) whole += stream.push(std::string_view(&byte, 1));
  CHECK(whole + stream.finish() == text);
}

TEST_CASE("trainer: a vocabulary that the text does not allow is a clear error") {
  const auto error_of = [](std::string_view text, std::uint32_t vocabulary) {
    TrainerOptions options;
    options.vocabulary = vocabulary;
    const auto result = train_tokenizer({&text, 1}, options);
    REQUIRE_FALSE(result);
    CHECK(result.error().code == ErrorCode::invalid_argument);
    return result.error().message;
  };
  CHECK(error_of("aaaa", 300).find("larger than the text allows: it has pairs for 259 tokens") !=
        std::string::npos);
  CHECK(error_of("aaaa", 256).find("too small") != std::string::npos);
  CHECK(error_of("", 300).find("empty") != std::string::npos);
}

TEST_CASE("tokenizer.json: what would give other ids is refused by name") {
  const auto error_of = [](const std::string& pre_tokenizer, const std::string& rest) {
    const auto result =
        Tokenizer::from_json("{\"pre_tokenizer\": " + pre_tokenizer + ", " + rest + "}");
    REQUIRE_FALSE(result);
    return result.error();
  };
  const std::string level = R"({"type": "ByteLevel"})";
  const std::string model = R"("model": {"vocab": {"a": 0, "b": 1}, "merges": []})";
  CHECK(error_of("null", model).code == ErrorCode::unsupported);
  CHECK(error_of(R"({"type": "Metaspace"})", model).message.find("Metaspace") != std::string::npos);
  CHECK(error_of(level, R"("normalizer": {"type": "Lowercase"}, )" + model)
            .message.find("Lowercase") != std::string::npos);
  CHECK(error_of(level, R"("model": {"type": "Unigram", "vocab": []})").message.find("Unigram") !=
        std::string::npos);
  CHECK(error_of(level, R"("model": {"byte_fallback": true})").code == ErrorCode::unsupported);
  CHECK(error_of(R"({"type": "Split", "pattern": {"Regex": "(("}, "behavior": "Isolated"})", model)
            .message.find("pattern") != std::string::npos);
  CHECK(error_of(level, R"("model": {"vocab": {"a": 0}, "merges": ["a b"]})")
            .message.find("merge 0") != std::string::npos);
  CHECK(error_of(level, R"("model": {"vocab": {"a": -1}, "merges": []})").code ==
        ErrorCode::corrupt);
  CHECK(error_of(level, R"("model": {"vocab": {"a": 1, "b": 1}, "merges": []})").code ==
        ErrorCode::corrupt);
  CHECK(Tokenizer::from_json("{").error().code == ErrorCode::corrupt);
  CHECK(Tokenizer::from_json("[]").error().code == ErrorCode::corrupt);
  CHECK(Tokenizer::load("none.json").error().code == ErrorCode::not_found);
}

}  // namespace
}  // namespace tutti::tokenizers
