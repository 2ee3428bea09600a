// Ids that Hugging Face's tokenizers gave (golden/make.py), for texts that are easy to get wrong.
#include <catch2/catch.hpp>

#include <boost/json/parse.hpp>
#include <boost/json/value_to.hpp>

#include "jobs/tokenizers/tokenizer.h"
#include "jobs/tokenizers/trainer.h"
#include "protocol/base/file.h"
#include "protocol/base/rng.h"

namespace tutti::tokenizers {
namespace {

namespace json = boost::json;

const std::string kGolden = "tests/unit/tokenizers/golden/";

json::value golden(const std::string& name) {
  const auto text = read_file(kGolden + name);
  REQUIRE(text);
  return json::parse(*text);
}

TEST_CASE("tokenizer: ids are those of Hugging Face's tokenizers, and bytes come back") {
  const json::value cases = golden("cases.json");
  std::string name;
  std::optional<Tokenizer> tokenizer;
  for (const json::value& each : cases.as_array()) {
    const std::string file(each.at("file").as_string());
    if (file != name) {
      auto loaded = Tokenizer::load(kGolden + file + ".json");
      if (!loaded) FAIL(loaded.error().message);
      tokenizer = std::move(*loaded);
      name = file;
    }
    const std::string text(each.at("text").as_string());
    INFO(file << ": " << text);
    const auto ids = tokenizer->encode(text);
    CHECK(ids == json::value_to<std::vector<TokenId>>(each.at("ids")));
    CHECK(tokenizer->encode_whole(text) == json::value_to<std::vector<TokenId>>(each.at("whole")));
    if (file == "gpt2") CHECK(tokenizer->decode(ids, SpecialTokens::as_text) == text);
  }
}

TEST_CASE("tokenizer: training gives the tokens that Hugging Face's trainer gives") {
  const auto corpus = json::value_to<std::vector<std::string>>(golden("corpus.json"));
  const std::vector<std::string_view> texts(corpus.begin(), corpus.end());
  TrainerOptions options;
  options.vocabulary = 400;
  const auto trained = train_tokenizer(texts, options);
  REQUIRE(trained);
  const auto theirs = Tokenizer::load(kGolden + "gpt2.json");
  REQUIRE(theirs);
  REQUIRE(trained->vocabulary() == theirs->vocabulary());
  for (TokenId id = 0; id < 400; ++id) CHECK(trained->bytes(id) == theirs->bytes(id));
  // Written and read, it is the same; and the file is stable.
  const auto again = Tokenizer::from_json(trained->to_json());
  REQUIRE(again);
  CHECK(again->to_json() == trained->to_json());
  CHECK(again->encode(corpus[2]) == theirs->encode(corpus[2]));
}

TEST_CASE("tokenizer.json: a damaged file is an error or a tokenizer, never a crash") {
  const auto whole = read_file(kGolden + "llama3.json");
  REQUIRE(whole);
  Rng rng(4);
  int read = 0;
  for (int round = 0; round < 400; ++round) {
    std::string damaged = *whole;
    for (std::uint64_t i = rng.below(3) + 1; i > 0; --i) {
      const std::uint64_t at = rng.below(damaged.size());
      if (rng.chance(0.3)) {
        damaged.erase(at, rng.below(40));
      } else {
        damaged[at] = rng.chance(0.5) ? static_cast<char>(rng.below(256))
                                      : damaged[rng.below(damaged.size())];
      }
    }
    const auto tokenizer = Tokenizer::from_json(damaged);
    if (!tokenizer) continue;
    ++read;
    CHECK(tokenizer->decode(tokenizer->encode_whole("the x\xff 12 \xe2\x82\xac")).size() < 200);
  }
  CHECK(read > 0);
  CHECK(read < 400);
}

}  // namespace
}  // namespace tutti::tokenizers
