// A rank that stands still on real processes: it is named, and its job goes on to the same bits.
#include <catch2/catch.hpp>

#include <boost/json/array.hpp>
#include <boost/json/parse.hpp>

#include <signal.h>

#include <algorithm>

#include "tests/cluster/training_specs.h"

using namespace tutti;
using test::Cluster;
using test::eventually;

namespace {

constexpr const char* kHang = "hang: {after: 3s}\n";

std::optional<boost::json::object> hang_of(const Cluster& cluster, std::uint64_t job) {
  const auto answer = cluster.get("/api/v1/jobs/" + std::to_string(job) + "/events?kind=hang");
  if (answer.status != 200) return std::nullopt;
  const auto events = boost::json::parse(answer.body).at("events").as_array();
  if (events.empty()) return std::nullopt;
  return events.front().as_object();
}

pid_t pid_of_rank(const Cluster& cluster, std::uint64_t job, int rank) {
  const auto answer = cluster.job(job);
  for (const auto& process : answer.at("processes").as_array()) {
    if (process.at("rank").to_number<int>() != rank) continue;
    return process.at("pid").to_number<pid_t>();
  }
  return 0;
}

// "... collective N of step N ..." or "... step N, collective N ...": both numbers are there.
bool tells_where(const std::string& message) {
  const auto number_after = [&](const std::string& word) {
    const auto at = message.find(word);
    return at != std::string::npos && at + word.size() < message.size() &&
           std::isdigit(static_cast<unsigned char>(message[at + word.size()])) != 0;
  };
  return number_after("collective ") && number_after("step ");
}

void check_named(const Cluster& cluster, std::uint64_t job, int rank) {
  REQUIRE(eventually([&] { return hang_of(cluster, job).has_value(); }));
  const boost::json::object event = *hang_of(cluster, job);
  const std::string message(event.at("message").as_string());
  INFO(message);
  CHECK(event.at("rank").to_number<int>() == rank);
  CHECK(message.find("rank " + std::to_string(rank) + " ") != std::string::npos);
  CHECK(tells_where(message));
}

void hang_and_recover(int rank) {
  Cluster cluster;
  const auto text = test::write_prose(cluster.files());
  const std::string spec =
      test::training_spec(text, {.ranks = 2, .steps = test::kEndless, .every = 25});
  const auto job = cluster.submit(spec + kHang);
  REQUIRE(eventually([&] { return cluster.step_of(job) >= 30; }));
  const pid_t victim = pid_of_rank(cluster, job, rank);
  const pid_t other = pid_of_rank(cluster, job, 1 - rank);
  REQUIRE(victim > 0);
  REQUIRE(cluster.tutti({"fault", "stop-rank", std::to_string(job), std::to_string(rank)}).code ==
          0);
  check_named(cluster, job, rank);
  // The one that stood still is ended, its peer keeps its process and its state.
  REQUIRE(eventually([&] {
    return cluster.state_of(job) == "running" &&
           cluster.job(job).at("generation").to_number<int>() >= 2;
  }));
  const auto now = cluster.ranks_of(job);
  CHECK(std::count(now.begin(), now.end(), victim) == 0);
  CHECK(std::count(now.begin(), now.end(), other) == 1);
  test::check_undisturbed(cluster, job, spec);
  CHECK(cluster.stop() == 0);
}

}  // namespace

TEST_CASE("cluster: a rank that stands still is named with its collective, ended and replaced") {
  hang_and_recover(1);
}

TEST_CASE("cluster: rank 0 stands still as well as any other") { hang_and_recover(0); }

TEST_CASE("cluster: a rank that stands still is told of where nothing is to be done about it") {
  Cluster cluster;
  const auto text = test::write_prose(cluster.files());
  const std::string spec =
      test::training_spec(text, {.ranks = 2, .steps = test::kEndless, .every = 25});
  const auto job = cluster.submit(spec + "hang: {after: 3s, action: tell}\n");
  REQUIRE(eventually([&] { return cluster.step_of(job) >= 30; }));
  const pid_t victim = pid_of_rank(cluster, job, 1);
  REQUIRE(victim > 0);
  REQUIRE(::kill(victim, SIGSTOP) == 0);
  check_named(cluster, job, 1);
  // It goes on where it was, in the same generation.
  REQUIRE(::kill(victim, SIGCONT) == 0);
  const std::uint64_t step = cluster.step_of(job);
  REQUIRE(eventually([&] { return cluster.step_of(job) >= step + 10; }));
  CHECK(cluster.job(job).at("generation").to_number<int>() == 1);
  test::check_undisturbed(cluster, job, spec);
  CHECK(cluster.stop() == 0);
}
