// What cannot work says so in one clear line, with the right exit code, and leaves nothing running.
#include <catch2/catch.hpp>

#include <sys/mount.h>

#include <algorithm>
#include <filesystem>
#include <string>

#include "tests/cluster/training_specs.h"
#include "tests/support/skip.h"

using namespace tutti;
using test::Cluster;
using test::Finished;
using test::run_tutti;
using test::training_spec;

namespace {

bool is_one_line(const std::string& text) {
  return !text.empty() && text.back() == '\n' && std::count(text.begin(), text.end(), '\n') == 1;
}

std::string replaced(std::string text, const std::string& from, const std::string& to) {
  const auto at = text.find(from);
  REQUIRE(at != std::string::npos);
  return text.replace(at, from.size(), to);
}

// A spec that cannot work is refused at submit with 2, or its job fails as the user's: 1.
void check_refused(const Cluster& cluster, const std::string& yaml, const std::string& about) {
  INFO(yaml);
  const auto file = cluster.files() / "wrong.yaml";
  REQUIRE(write_file_atomically(file, yaml));
  const Finished submitted = cluster.tutti({"submit", file.string()});
  if (submitted.code != 0) {
    CHECK(submitted.code == 2);
    CHECK(is_one_line(submitted.err));
    INFO(submitted.err);
    CHECK(submitted.err.find(about) != std::string::npos);
    return;
  }
  const std::string job = submitted.out.substr(0, submitted.out.find('\n'));
  const Finished waited = cluster.tutti({"wait", job});
  CHECK(waited.code == 1);
  const Finished shown = cluster.tutti({"job", job, "-o", "json"});
  INFO(shown.out);
  CHECK(shown.out.find(about) != std::string::npos);
  CHECK(cluster.ranks_of(std::stoull(job)).empty());
}

}  // namespace

TEST_CASE(
    "cluster: a training spec that cannot work is refused in one line, or fails as the user's") {
  Cluster cluster;
  const auto text = test::write_prose(cluster.files());
  const std::string good = training_spec(text, {.ranks = 2, .steps = 4});
  const auto empty = cluster.files() / "empty.txt";
  const auto small = cluster.files() / "small.txt";
  REQUIRE(write_file_atomically(empty, ""));
  REQUIRE(write_file_atomically(small, "the river and the stone\n"));
  check_refused(cluster, replaced(good, text.string(), "/no/such/file.txt"), "/no/such/file.txt");
  check_refused(cluster, replaced(good, text.string(), empty.string()), "empty");
  check_refused(cluster, replaced(good, "batch: 8", "batch: 0"), "batch");
  check_refused(cluster, replaced(good, "data: 2, shards: 8", "data: 16, shards: 8"), "16");
  check_refused(cluster, replaced(good, "vocabulary: 300", "vocabulary: 30000"), "30000");
  check_refused(cluster, replaced(good, text.string(), small.string()), "small.txt");
  check_refused(cluster, replaced(good, "sequence: 32", "sequence: 1000000"), "1000000");
  check_refused(cluster, replaced(good, "steps: 4", "stpes: 4"), "did you mean \"steps\"");
  check_refused(
      cluster,
      "name: x\nkind: train\nmodel: {path: /no/such/model}\n" + good.substr(good.find("data:")),
      "/no/such/model");
  CHECK(cluster.stop() == 0);
}

TEST_CASE("cluster: a model folder with a tensor missing or of a wrong shape fails as the user's") {
  Cluster cluster;
  const auto text = test::write_prose(cluster.files());
  const auto job = cluster.submit(training_spec(text, {.ranks = 1, .steps = 2, .every = 2}));
  REQUIRE(cluster.wait(job) == 0);
  const auto whole = cluster.state() / "jobs" / std::to_string(job) / "checkpoints" / "step-2";
  const auto weights = read_file(whole / "model.safetensors");
  REQUIRE(weights);
  const auto altered = [&](const std::string& name, const std::string& from,
                           const std::string& to) {
    REQUIRE(from.size() == to.size());
    const auto folder = cluster.files() / name;
    std::filesystem::copy(whole, folder);
    std::filesystem::remove(folder / "manifest.json");  // a model from elsewhere has none
    REQUIRE(write_file_atomically(folder / "model.safetensors", replaced(*weights, from, to)));
    return "name: x\nkind: serve\nmodel: {path: " + folder.string() + "}\n";
  };
  check_refused(cluster, altered("missing", "model.norm.weight", "model.nork.weight"),
                "model.norm.weight");
  check_refused(cluster, altered("shape", "\"shape\":[300,64]", "\"shape\":[64,300]"), "[64, 300]");
  CHECK(cluster.stop() == 0);
}

TEST_CASE("cluster: more ranks than there are slots are refused before anything is started") {
  Cluster cluster;
  const auto text = test::write_prose(cluster.files());
  const auto file = cluster.files() / "wide.yaml";
  REQUIRE(write_file_atomically(file, training_spec(text, {.ranks = 4, .steps = 4})));
  const Finished submitted = cluster.tutti({"submit", file.string()});
  CHECK(submitted.code == 5);
  CHECK(is_one_line(submitted.err));
  CHECK(cluster.stop() == 0);
}

TEST_CASE(
    "cluster: a second `tutti up` on a state folder ends with 2 and one line, the first goes on") {
  Cluster cluster(1);
  const Finished second = run_tutti({"up", "--state", cluster.state().string(), "--port", "0"});
  CHECK(second.code == 2);
  CHECK(is_one_line(second.err));
  CHECK(cluster.tutti({"nodes"}).code == 0);
  CHECK(cluster.stop() == 0);
}

TEST_CASE("cluster: a state folder that cannot be written ends `tutti up` with 2 and one line") {
  const Finished up = run_tutti({"up", "--state", "/proc/tutti-state", "--port", "0"});
  CHECK(up.code == 2);
  CHECK(is_one_line(up.err));
  const test::TemporaryFolder folder;
  if (::mount("tmpfs", folder.path().c_str(), "tmpfs", MS_RDONLY, nullptr) != 0) {
    return test::skip_part("no right to mount a read-only disk");
  }
  const Finished read_only =
      run_tutti({"up", "--state", (folder.path() / "state").string(), "--port", "0"});
  CHECK(::umount2(folder.path().c_str(), MNT_DETACH) == 0);
  CHECK(read_only.code == 2);
  CHECK(is_one_line(read_only.err));
}
