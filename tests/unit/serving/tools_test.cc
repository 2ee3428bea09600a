#include <fcntl.h>
#include <unistd.h>

#include <boost/json/parse.hpp>
#include <boost/json/value_to.hpp>
#include <catch2/catch.hpp>
#include <cstdio>

#include "jobs/data/npy.h"
#include "jobs/serving/generate_tool.h"
#include "jobs/serving/score_tool.h"
#include "jobs/tokenizers/tokenize_tool.h"
#include "jobs/tokenizers/tokenizer_tool.h"
#include "protocol/base/file.h"
#include "tests/support/temporary_folder.h"
#include "tests/unit/serving/tiny_model.h"

namespace tutti::serving {
namespace {

namespace json = boost::json;

using Tool = int (*)(std::span<const std::string>);

struct Ran {
  int exit = 0;
  std::string out;
  std::string err;
};

// Runs a tool with standard output and standard error caught in files.
Ran run(Tool tool, const std::vector<std::string>& args) {
  const test::TemporaryFolder folder;
  Ran ran;
  const auto caught = [&](int descriptor) {
    const std::string path = (folder.path() / std::to_string(descriptor)).string();
    const int saved = ::dup(descriptor);
    const int file = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    ::dup2(file, descriptor);
    ::close(file);
    return saved;
  };
  std::fflush(stdout);
  const int out = caught(1);
  const int err = caught(2);
  ran.exit = tool(args);
  std::fflush(stdout);
  ::dup2(out, 1);
  ::dup2(err, 2);
  ::close(out);
  ::close(err);
  ran.out = *read_file(folder.path() / "1");
  ran.err = *read_file(folder.path() / "2");
  return ran;
}

// A model directory and a text.
class Work {
 public:
  Work() {
    const ServedModel served = tiny_model();
    REQUIRE(
        models::save_model(served.decoder, tiny_weights(served.decoder).span(), folder_.path()));
    REQUIRE(write_file_atomically(path("tokenizer.json"), served.tokenizer->to_json()));
    REQUIRE(write_file_atomically(path("text"), "And the earth was without form"));
  }
  std::string path(const std::string& name) const { return (folder_.path() / name).string(); }
  std::string model() const { return folder_.path().string(); }

 private:
  test::TemporaryFolder folder_;
};

TEST_CASE("tools: text becomes tokens, tokens become text, and both are continued and scored") {
  const Work work;
  const Tool tokenize = tokenizers::run_tokenize_tool;
  REQUIRE(run(tokenize, {"--tokenizer", work.path("tokenizer.json"), "--out", work.path("t.npy"),
                         work.path("text")})
              .exit == 0);
  CHECK(run(tokenize,
            {"--tokenizer=" + work.path("tokenizer.json"), "--decode=" + work.path("t.npy")})
            .out == "And the earth was without form");

  const Ran by_tokens = run(run_generate_tool, {work.model(), "--tokens", work.path("t.npy"),
                                                "--max", "9", "--greedy", "-o", "json"});
  REQUIRE(by_tokens.exit == 0);
  const json::value generated = json::parse(by_tokens.out);
  CHECK(generated.at("tokens").as_array().size() == 9);
  CHECK(generated.at("text").is_string());
  const Ran by_text =
      run(run_generate_tool, {work.model(), "--prompt", "And the earth was without form", "--max",
                              "9", "--temperature", "0", "-o", "json"});
  CHECK(by_text.out == by_tokens.out);
  CHECK(
      run(run_generate_tool, {work.model(), "--prompt", "And", "--max", "3"}).out.ends_with("\n"));

  const Ran scored =
      run(run_score_tool, {work.model(), "--tokens", work.path("t.npy"), "-o", "json"});
  REQUIRE(scored.exit == 0);
  const json::value score = json::parse(scored.out);
  const auto tokens = data::TokenFile::open(work.path("t.npy"));
  REQUIRE(tokens);
  CHECK(score.at("tokens").to_number<std::uint64_t>() == tokens->size());
  CHECK(score.at("logprobs").as_array().size() == tokens->size() - 1);
  CHECK(score.at("perplexity").as_double() > 1);
  CHECK(run(run_score_tool, {work.model(), "--text", work.path("text"), "-o", "json"}).out ==
        scored.out);

  // In bf16 this model scores nearly the same; a format that there is not is named.
  const Ran half = run(run_score_tool, {work.model(), "--tokens", work.path("t.npy"), "--weights",
                                        "bf16", "-o", "json"});
  REQUIRE(half.exit == 0);
  CHECK(half.out != scored.out);
  CHECK(json::parse(half.out).at("perplexity").as_double() ==
        Approx(score.at("perplexity").as_double()).epsilon(0.05));
  CHECK(run(run_generate_tool, {work.model(), "--prompt", "And", "--weights", "int3"}).exit != 0);
}

TEST_CASE("tools: a tokenizer is trained from files") {
  const Work work;
  const Tool tool = tokenizers::run_tokenizer_tool;
  CHECK(
      run(tool, {"train", "--vocabulary", "262", "--out", work.path("new.json"), work.path("text")})
          .exit == 0);
  const auto trained = tokenizers::Tokenizer::load(work.path("new.json"));
  REQUIRE(trained);
  CHECK(trained->vocabulary() == 262);
  const Ran large = run(
      tool, {"train", "--vocabulary", "5000", "--out", work.path("new.json"), work.path("text")});
  CHECK(large.exit == 2);
  CHECK(large.err.find("larger than the text allows") != std::string::npos);
}

TEST_CASE("tools: bad input is one clear line and exit code 2") {
  const Work work;
  const auto line_of = [](Tool tool, const std::vector<std::string>& args) {
    const Ran ran = run(tool, args);
    CHECK(ran.exit == 2);
    CHECK(ran.out.empty());
    CHECK(std::count(ran.err.begin(), ran.err.end(), '\n') == 1);
    return ran.err;
  };
  CHECK(line_of(run_generate_tool, {}).find("one model directory") != std::string::npos);
  CHECK(line_of(run_generate_tool, {work.model()}).find("--prompt or --tokens") !=
        std::string::npos);
  CHECK(line_of(run_generate_tool, {work.model(), "--max", "x"}).find("\"x\"") !=
        std::string::npos);
  CHECK(line_of(run_generate_tool, {work.model(), "--mix", "x"}).find("--mix") !=
        std::string::npos);
  CHECK(line_of(run_generate_tool, {"/none", "--prompt", "x"}).find("/none") != std::string::npos);
  CHECK(line_of(run_generate_tool, {work.model(), "--prompt", "x", "--max", "500"})
            .find("context of 200") != std::string::npos);
  CHECK(line_of(run_score_tool, {work.model(), "--tokens", work.path("text")})
            .find("not a token file") != std::string::npos);
  CHECK(line_of(tokenizers::run_tokenize_tool, {"--out", "x", work.path("text")})
            .find("--tokenizer is needed") != std::string::npos);
  CHECK(line_of(tokenizers::run_tokenizer_tool, {"test"}).find("train") != std::string::npos);
  CHECK(run(run_score_tool, {"--help"}).out.starts_with("usage: tutti score"));
}

}  // namespace
}  // namespace tutti::serving
