// GPUs that fail in the middle of a job, in each part of a step: the failure is the
// infrastructure's, the rank is replaced, and the bits are those of an undisturbed run.
#include <fmt/core.h>

#include <boost/json/parse.hpp>
#include <catch2/catch.hpp>
#include <filesystem>

#include "tests/emulation/emulated_cluster.h"
#include "tests/support/temporary_folder.h"

using namespace tutti;
using test::Cluster;
using test::emulated;
using test::eventually;
using test::tiny_spec;

namespace {

// Where ranks read what fails next (injected_fault.h).
class Faults {
 public:
  std::string variable() const { return "TUTTI_EMULATION_FAULT_AT=" + file().string(); }
  void at(const std::string& kernel, unsigned launch) const {
    REQUIRE(write_file_atomically(file(), fmt::format("{} {}\n", kernel, launch)));
  }
  bool happened() const { return !std::filesystem::exists(file()); }

 private:
  std::filesystem::path file() const { return folder_.path() / "fault"; }

  test::TemporaryFolder folder_;
};

std::uint64_t failures_used(const Cluster& cluster, std::uint64_t job, const char* whose) {
  return cluster.job(job).at("budgets").at(whose).at("used").to_number<std::uint64_t>();
}

}  // namespace

TEST_CASE(
    "emulation: a GPU that fails in any part of a step ends its rank as the infrastructure's") {
  const Faults faults;
  Cluster cluster(emulated(3, {faults.variable()}));
  const auto undisturbed = cluster.submit(tiny_spec(cluster, 2));
  REQUIRE(cluster.wait(undisturbed) == 0);
  const auto expected = cluster.hashes(undisturbed);
  REQUIRE(expected.size() == 5);
  struct Row {
    const char* part;
    const char* kernel;
    unsigned launch;
  };
  const Row rows[] = {
      {"the rehearsal of products", "embedding_forward", 1},
      {"forward", "attend_kernel", 4},
      {"the loss", "cross_entropy", 5},
      {"backward", "silu_gate_backward", 6},
      {"the sum of what ranks sent", "piece_sum", 3},
      {"the norm of the gradients", "square_sums", 3},
      {"the update", "adamw", 3},
  };
  for (const Row& row : rows) {
    INFO(row.part);
    faults.at(row.kernel, row.launch);
    const auto job = cluster.submit(tiny_spec(cluster, 2));
    REQUIRE(cluster.wait(job) == 0);
    CHECK(faults.happened());
    CHECK(cluster.hashes(job) == expected);
    CHECK(failures_used(cluster, job, "infrastructure") == 1);
    CHECK(failures_used(cluster, job, "own") == 0);
    CHECK(failures_used(cluster, job, "user") == 0);
    const std::string events = cluster.tutti({"events", std::to_string(job)}).out;
    INFO(events);
    CHECK(events.find("a test ended the device here") != std::string::npos);
  }
  CHECK(cluster.stop() == 0);
}

TEST_CASE("emulation: a server whose GPU fails is replaced, and its requests may be sent again") {
  const Faults faults;
  Cluster cluster(emulated(1, {faults.variable()}));
  const auto trained = cluster.submit(tiny_spec(cluster, 1));
  REQUIRE(cluster.wait(trained) == 0);
  const std::string model =
      std::string(cluster.job(trained).at("folder").as_string()) + "/checkpoints/step-5";
  const auto complete = [&] {
    return cluster.post(
        "/v1/completions",
        R"({"model": "tiny", "prompt": "the ", "max_tokens": 5, "temperature": 0})");
  };
  std::string text;
  const auto answers = [&] {
    const api::HttpAnswer answer = complete();
    if (answer.status != 200) return false;
    const boost::json::value body = boost::json::parse(answer.body);
    const std::string said(body.at("choices").at(0).at("text").as_string());
    if (text.empty()) text = said;
    CHECK(said == text);
    return true;
  };
  struct Row {
    const char* when;
    unsigned launch;
  };
  // A prompt, two steps of each of sixteen batches and of lengths 2, 4, 8 and 12 come before the
  // first request.
  for (const Row& row : {Row{"before it is ready", 3}, Row{"while it serves", 1 + 2 * 20 + 8}}) {
    INFO(row.when);
    faults.at("choose_kernel", row.launch);
    const auto served = cluster.submit("name: tiny\nkind: serve\nmodel: {path: " + model + "}\n");
    REQUIRE(eventually([&] {
      static_cast<void>(answers());
      return faults.happened();
    }));
    REQUIRE(eventually(answers));
    CHECK(failures_used(cluster, served, "infrastructure") == 1);
    CHECK(failures_used(cluster, served, "own") == 0);
    REQUIRE(cluster.tutti({"cancel", std::to_string(served)}).code == 0);
    CHECK(cluster.wait(served) == 1);
  }
  CHECK_FALSE(text.empty());
  CHECK(cluster.stop() == 0);
}
