#include <catch2/catch.hpp>

#include <sstream>
#include <string>
#include <vector>

#include "coordinator/scheduler/quotas.h"
#include "protocol/base/file.h"
#include "protocol/spec/cluster_config.h"

namespace tutti::spec {
namespace {

TEST_CASE("cluster configuration: read strictly, with its own keys") {
  const Result<CoordinatorConfig> coordinator = parse_coordinator_config(
      "state: /s\nhttp_port: 7070\nlease_ms: 1000\nheartbeat_ms: 100\n"
      "quotas: {default: slots=8 queued=9, ada: share=2}\n",
      "c.yaml");
  REQUIRE(coordinator);
  CHECK(coordinator->http_port == 7070);
  CHECK(coordinator->lease_ms == 1000);
  CHECK(coordinator->quotas.at("default") == "slots=8 queued=9");
  CHECK(coordinator->source == "c.yaml");
  const Result<WorkerConfig> worker =
      parse_worker_config("{state: /w, join: /s/join.json, slots: 2}", "w.yaml");
  REQUIRE(worker);
  CHECK(worker->slots == 2);
  CHECK(parse_coordinator_config(to_yaml(*coordinator), "c.yaml").ok());
  CHECK(*parse_coordinator_config(to_yaml(*coordinator), "c.yaml") == *coordinator);
  CHECK(*parse_worker_config(to_yaml(*worker), "w.yaml") == *worker);

  CHECK(parse_coordinator_config("state: /s\nhtp_port: 1\n", "c.yaml").error().message ==
        "c.yaml:2:1: unknown key \"htp_port\"; did you mean \"http_port\"?");
  CHECK(parse_coordinator_config("state: /s\nhttp_port: 65536\n", "c.yaml").error().message ==
        "c.yaml:2:12: http_port must be between 0 and 65535, not 65536");
  CHECK(parse_coordinator_config("state: /s\nlease_ms: 600\n", "c.yaml").error().message ==
        "c.yaml:1:1: heartbeat_ms must be at most half of lease_ms");
  CHECK(parse_worker_config("state: /w\n", "w.yaml").error().message ==
        "w.yaml:1:1: join is missing: join.json, which the coordinator writes");
}

TEST_CASE("cluster configuration: the example files are read, and say what is meant") {
  const std::string folder = "ops/examples/machines/";
  const auto coordinator_file = read_file(folder + "coordinator.yaml");
  const auto worker_file = read_file(folder + "worker.yaml");
  REQUIRE((coordinator_file && worker_file));
  const auto coordinator = parse_coordinator_config(*coordinator_file, "coordinator.yaml");
  INFO((coordinator ? "" : coordinator.error().message));
  REQUIRE(coordinator);
  CHECK(coordinator->quotas.at("ann") == "slots=32 running=8 share=2");
  const auto quotas = coordinator::scheduler::parse_quotas(coordinator->quotas);
  INFO((quotas ? "" : quotas.error().message));
  CHECK(quotas.ok());
  const auto worker = parse_worker_config(*worker_file, "worker.yaml");
  INFO((worker ? "" : worker.error().message));
  REQUIRE(worker);
  CHECK(worker->labels.at("rack") == "1");
}

TEST_CASE("cluster configuration: help names each key, its meaning and its default") {
  // Of a configuration with every key in it, as it is printed.
  const auto keys_of = [](const std::string& yaml) {
    std::vector<std::string> keys;
    std::istringstream lines(yaml);
    for (std::string line; std::getline(lines, line);) {
      if (line.front() != ' ') keys.push_back("  " + line.substr(0, line.find(':')) + ' ');
    }
    return keys;
  };
  CoordinatorConfig coordinator;
  coordinator.state = coordinator.job_folders = "/s";
  coordinator.faults = true;
  coordinator.quotas["default"] = "slots=1";
  WorkerConfig worker;
  worker.state = worker.join = worker.name = worker.rank_binary = "w";
  worker.faults = true;
  worker.labels["disk"] = "nvme";
  const std::string of_coordinator = coordinator_key_lines();
  const std::string of_worker = worker_key_lines();
  for (const std::string& key : keys_of(to_yaml(coordinator))) {
    INFO(of_coordinator);
    CHECK(of_coordinator.find(key) != std::string::npos);
  }
  for (const std::string& key : keys_of(to_yaml(worker))) {
    INFO(of_worker);
    CHECK(of_worker.find(key) != std::string::npos);
  }
  CHECK(of_coordinator.find("lease_ms             silence after which a worker is lost (5000)\n") !=
        std::string::npos);
  CHECK(of_worker.find("(required)") != std::string::npos);
}

}  // namespace
}  // namespace tutti::spec
