// A trained checkpoint behind the OpenAI-compatible endpoint, also when its rank is killed.
#include <catch2/catch.hpp>

#include <boost/json/parse.hpp>

#include <signal.h>

#include <fstream>
#include <future>

#include "tests/cluster/training_specs.h"

using namespace tutti;
using test::Cluster;
using test::eventually;

namespace {

std::string first_line(const std::filesystem::path& file) {
  std::ifstream in(file);
  std::string line;
  std::getline(in, line);
  return line;
}

// A cluster that serves a model which it trained itself.
class Served {
 public:
  explicit Served(const std::string& weights = "fp32", const std::string& keys = {}) {
    const auto text = test::write_prose(cluster.files());
    const auto trained = cluster.submit(test::training_spec(text, {.steps = 10}));
    REQUIRE(cluster.wait(trained) == 0);
    const std::string folder(cluster.job(trained).at("folder").as_string());
    job = cluster.submit("name: tiny\nkind: serve\nmodel: {path: " + folder +
                         "/checkpoints/step-10}\nserve: {weights: " + weights + "}\n" + keys);
    REQUIRE(eventually([&] { return cluster.get("/v1/models").body.find("tiny") != npos; }));
  }

  // Also from other threads: it checks nothing. Status 0: no answer, and why.
  api::HttpAnswer complete(const std::string& more = {}) const {
    auto client = *api::HttpClient::connect_to({.url = first_line(cluster.state() / "address"),
                                                .token = first_line(cluster.state() / "token")});
    auto answer = client->request(
        {.method = "POST",
         .target = "/v1/completions",
         .body =
             R"({"model": "tiny", "prompt": "the ", "max_tokens": 12, "seed": 7)" + more + "}"});
    return answer ? *std::move(answer) : api::HttpAnswer{0, {}, answer.error().message};
  }
  std::string text() const {
    const api::HttpAnswer answer = complete();
    INFO(answer.body);
    REQUIRE(answer.status == 200);
    const auto body = boost::json::parse(answer.body);
    return std::string(body.at("choices").at(0).at("text").as_string());
  }
  pid_t rank() const {
    const auto ranks = cluster.ranks_of(job);
    REQUIRE(ranks.size() == 1);
    return ranks.front();
  }

  static constexpr std::size_t npos = std::string::npos;
  Cluster cluster;
  std::uint64_t job = 0;
};

}  // namespace

TEST_CASE("cluster: a served model gives the same answer after kill -9 of rank and coordinator") {
  Served served;
  const std::string before = served.text();
  CHECK_FALSE(before.empty());
  REQUIRE(::kill(served.rank(), SIGKILL) == 0);
  // A request that comes too early may be sent to the dead rank and end with an error.
  REQUIRE(eventually([&] { return served.complete().status == 200; }));
  CHECK(served.text() == before);
  served.cluster.kill_part("coordinator");
  REQUIRE(eventually([&] { return served.cluster.pid_of("coordinator") != 0; }));
  REQUIRE(eventually(
      [&] { return served.cluster.get("/v1/models").body.find("tiny") != Served::npos; }));
  CHECK(served.text() == before);
  CHECK(served.cluster.stop() == 0);
}

TEST_CASE("cluster: a model is served in bf16 with the same answer after its rank is killed") {
  Served served("bf16");
  const std::string before = served.text();
  CHECK_FALSE(before.empty());
  REQUIRE(::kill(served.rank(), SIGKILL) == 0);
  REQUIRE(eventually([&] { return served.complete().status == 200; }));
  CHECK(served.text() == before);
  CHECK(served.cluster.stop() == 0);
}

TEST_CASE("cluster: a server whose process stands still is named, ended and started again") {
  Served served("fp32", "hang: {after: 2s}\n");
  const std::string before = served.text();
  const pid_t rank = served.rank();
  REQUIRE(::kill(rank, SIGSTOP) == 0);
  REQUIRE(eventually([&] {
    const auto ranks = served.cluster.ranks_of(served.job);
    return ranks.size() == 1 && ranks.front() != rank;
  }));
  REQUIRE(eventually([&] { return served.complete().status == 200; }));
  CHECK(served.text() == before);
  const std::string events =
      served.cluster.get("/api/v1/jobs/" + std::to_string(served.job) + "/events?kind=hang").body;
  INFO(events);
  CHECK(events.find("rank 0 stands still since") != std::string::npos);
  const std::string metrics = served.cluster.get("/metrics").body;
  CHECK(metrics.find("tutti_recovery_phase_seconds_count{phase=\"regrouped\"} 1") !=
        std::string::npos);
  CHECK(served.cluster.stop() == 0);
}

TEST_CASE("cluster: requests that are open when their rank is killed end with one error each") {
  Served served;
  REQUIRE_FALSE(served.text().empty());  // else they would wait for the link, and for the successor
  const pid_t rank = served.rank();
  REQUIRE(::kill(rank, SIGSTOP) == 0);
  std::vector<std::future<api::HttpAnswer>> open;
  for (const char* more : {"", "", R"(, "stream": true)", R"(, "stream": true)"}) {
    open.push_back(
        std::async(std::launch::async, [&served, more] { return served.complete(more); }));
  }
  REQUIRE(eventually([&] {
    return served.cluster.get("/metrics").body.find("tutti_gateway_open_requests 4") !=
           Served::npos;
  }));
  REQUIRE(::kill(rank, SIGKILL) == 0);
  for (auto& request : open) {
    const api::HttpAnswer answer = request.get();
    INFO(answer.body);
    CHECK(answer.status == 503);
    CHECK(answer.body.starts_with(R"({"error":{)"));
  }
  REQUIRE(eventually([&] { return served.complete().status == 200; }));
  CHECK(served.cluster.stop() == 0);
}

TEST_CASE("cluster: a model is served without a pause while its node is drained") {
  Served served;
  const std::string before = served.text();
  Cluster& cluster = served.cluster;
  cluster.add_worker("second", 1);
  const auto answer = cluster.job(served.job);
  const std::string node(answer.at("processes").at(0).at("worker").as_string());
  REQUIRE(node != "second");
  REQUIRE(cluster.tutti({"drain", node, "--reason", "a new disk"}).code == 0);
  // Whoever asks at any time is answered.
  int failed = 0;
  REQUIRE(eventually([&] {
    failed += served.complete().status == 200 ? 0 : 1;
    return cluster.get("/api/v1/nodes").body.find("\"drained\"") != Served::npos;
  }));
  CHECK(failed == 0);
  CHECK(served.text() == before);
  CHECK(cluster.job(served.job).at("processes").at(0).at("worker").as_string() == "second");
  const std::string events = cluster.tutti({"events", std::to_string(served.job)}).out;
  INFO(events);
  CHECK(events.find("queued again") == std::string::npos);
  CHECK(cluster.stop() == 0);
}

TEST_CASE(
    "cluster: what is open when another rank takes over is finished by the one it was sent to") {
  Served served;
  const std::string before = served.text();
  Cluster& cluster = served.cluster;
  cluster.add_worker("second", 1);
  const pid_t rank = served.rank();
  const std::string node(cluster.job(served.job).at("processes").at(0).at("worker").as_string());
  REQUIRE(::kill(rank, SIGSTOP) == 0);
  std::vector<std::future<api::HttpAnswer>> open;
  for (const char* more : {"", R"(, "stream": true)"}) {
    open.push_back(
        std::async(std::launch::async, [&served, more] { return served.complete(more); }));
  }
  const auto metric = [&](const std::string& line) {
    return eventually([&] { return cluster.get("/metrics").body.find(line) != Served::npos; });
  };
  REQUIRE(metric("tutti_gateway_open_requests 2"));
  REQUIRE(cluster.tutti({"drain", node, "--reason", "a new disk"}).code == 0);
  // Both ranks have a link now: the successor's, and the one that what is open is answered on.
  REQUIRE(metric("tutti_gateway_links 2"));
  REQUIRE(eventually([&] { return served.complete().status == 200; }));  // by the successor
  REQUIRE(::kill(rank, SIGCONT) == 0);
  for (auto& request : open) {
    const api::HttpAnswer answer = request.get();
    INFO(answer.body);
    CHECK(answer.status == 200);
  }
  REQUIRE(metric("tutti_gateway_links 1"));
  REQUIRE(eventually(
      [&] { return cluster.get("/api/v1/nodes").body.find("\"drained\"") != Served::npos; }));
  CHECK(served.text() == before);
  CHECK(cluster.stop() == 0);
}
