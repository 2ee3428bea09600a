// Each file in wrong/ is a spec with one fault; wrong/expected.txt has the exact line that a user
// reads, in file order. After an intended change of a message, `TUTTI_WRITE_EXPECTED=1 spec_test`
// writes the file anew; read the difference.
#include <catch2/catch.hpp>

#include <cstdlib>
#include <filesystem>
#include <set>
#include <sstream>

#include "protocol/base/file.h"
#include "protocol/spec/parse.h"

namespace tutti::spec {
namespace {

const std::filesystem::path kFolder = "tests/unit/spec/wrong";

std::string message_of(std::string_view yaml, std::vector<std::string> overrides = {}) {
  const Result<JobSpec> spec = parse_job_spec(yaml, {"job.yaml", std::move(overrides)});
  return spec ? "accepted" : spec.error().message;
}

TEST_CASE("spec: every wrong spec of the corpus is refused with its one exact line") {
  std::set<std::filesystem::path> files;
  for (const auto& entry : std::filesystem::directory_iterator(kFolder)) {
    if (entry.path().extension() == ".yaml") files.insert(entry.path());
  }
  REQUIRE(files.size() >= 50);
  std::string lines;
  for (const auto& file : files) {
    INFO(file.string());
    const Result<std::string> yaml = read_file(file);
    REQUIRE(yaml);
    const Result<JobSpec> spec = parse_job_spec(*yaml, {file.filename().string(), {}});
    REQUIRE_FALSE(spec);
    const std::string& message = spec.error().message;
    const bool later = message.find("not supported by this version") != std::string::npos;
    CHECK(spec.error().code == (later ? ErrorCode::unsupported : ErrorCode::invalid_argument));
    CHECK(message.find('\n') == std::string::npos);
    CHECK(message.find(file.filename().string() + ":") == 0);
    lines += message + '\n';
  }
  if (std::getenv("TUTTI_WRITE_EXPECTED") != nullptr) {
    REQUIRE(write_file_atomically(kFolder / "expected.txt", lines));
  }
  const Result<std::string> expected = read_file(kFolder / "expected.txt");
  REQUIRE(expected);
  std::istringstream got(lines);
  std::istringstream wanted(*expected);
  std::string one;
  std::string other;
  while (std::getline(wanted, other)) {
    std::getline(got, one);
    CHECK(one == other);
  }
  CHECK_FALSE(std::getline(got, one));
}

constexpr std::string_view kGood =
    "name: a\nkind: train\nmodel: {path: m}\ndata: {tokens: [t.npy], sequence: 8}\n"
    "train: {steps: 1, batch: 8}\n";

TEST_CASE("spec: faults in a job's spec are told where they belong") {
  CHECK(message_of(std::string(kGood) + "faults:\n  seed: 1\n")
            .find(":6:1: faults are not a job's: `tutti fault run FILE`") != std::string::npos);
}

TEST_CASE("spec: an error in an override names the flag, not a line of the file") {
  CHECK(message_of(kGood, {"train.stpes=3"}) ==
        "--set train.stpes=3: unknown key \"stpes\" in train; did you mean \"steps\"?");
  CHECK(message_of(kGood, {"train.steps=0"}) ==
        "--set train.steps=0: train.steps must be between 1 and 1000000000000000, not 0");
  CHECK(message_of(kGood, {"train.steps"}) ==
        "--set train.steps: expected KEY=VALUE, such as train.steps=10");
  CHECK(message_of(kGood, {"=3"}) == "--set =3: expected KEY=VALUE, such as train.steps=10");
  CHECK(message_of(kGood, {"train..steps=3"}) ==
        "--set train..steps=3: a part of the key is empty");
  CHECK(message_of(kGood, {"data.tokens.0=x"}) ==
        "--set data.tokens.0=x: the items of a list cannot be set one by one; give the whole list");
  CHECK(
      message_of(kGood, {"data.tokens=[x"}).find("--set data.tokens=[x: the value is not YAML: ") ==
      0);
  CHECK(message_of(kGood, {"parallel.shards=3"}) ==
        "--set parallel.shards=3: parallel.shards must be a power of two, not 3");
  CHECK(message_of(kGood, {"resources.device=cpu", "resources.device_memory=8GiB"})
            .find("a CPU has no memory of its own") != std::string::npos);
  CHECK(message_of(kGood, {"kind=tune"}) ==
        "--set kind=tune: kind tune is not supported by this version (train, serve and run are)");
  CHECK(message_of(kGood, {"train.steps=2", "train.batch=8"}) == "accepted");
}

TEST_CASE("spec: size, keys and depth have limits") {
  CHECK(message_of(std::string(kSpecBytesMax + 1, '#')).find("is 1048577 bytes long") !=
        std::string::npos);
  std::string keys(kGood);
  for (int i = 0; i < 5'000; ++i) keys += "k" + std::to_string(i) + ": 1\n";
  CHECK(message_of(keys).find("the map has too many keys") != std::string::npos);
  std::string lists;
  for (int i = 0; i < 100'000; ++i) lists += "- ";
  CHECK(message_of(lists) == "job.yaml:1:33: the specification is nested too deeply");
  std::string many = "a: [";
  for (int i = 0; i < 110'000; ++i) many += "a,";
  CHECK(message_of(many + "]").find("the specification has too many values") != std::string::npos);
}

// A small generator of its own kind of noise: real text with bytes changed, cut, doubled and moved.
TEST_CASE("spec: ten thousand damaged specs give one line each and never a crash") {
  std::uint64_t state = 7;
  const auto below = [&](std::size_t bound) {
    state = state * 6364136223846793005ULL + 1442695040888963407ULL;
    return static_cast<std::size_t>((state >> 33) % bound);
  };
  constexpr std::string_view kBytes = "{}[]:,&*!|>'\"%@`#-? \n\t\\0~<=ea\xc3\xa9\xff";
  std::size_t refused = 0;
  for (int round = 0; round < 10'000; ++round) {
    std::string yaml(kGood);
    for (std::size_t change = 0; change <= below(4); ++change) {
      const std::size_t at = below(yaml.size());
      switch (below(4)) {
        case 0: yaml[at] = kBytes[below(kBytes.size())]; break;
        case 1: yaml.insert(at, 1, kBytes[below(kBytes.size())]); break;
        case 2: yaml.erase(at, 1 + below(8)); break;
        default: yaml.insert(at, yaml.substr(below(yaml.size()), below(20))); break;
      }
    }
    const std::string message = message_of(yaml);
    if (message == "accepted") continue;
    ++refused;
    const bool one_line = message.find('\n') == std::string::npos && message.find("job.yaml:") == 0;
    if (!one_line) FAIL(yaml << "\n--> " << message);
  }
  CHECK(refused > 5'000);
}

}  // namespace
}  // namespace tutti::spec
