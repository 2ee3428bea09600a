// Who may speak to a cluster, and what it listens on.
#include <catch2/catch.hpp>

#include <signal.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>
#include <string>

#include "tests/support/cluster.h"

using namespace tutti;
using test::Cluster;

namespace {

unsigned mode_of(const std::filesystem::path& path) {
  struct stat status {};
  return ::stat(path.c_str(), &status) == 0 ? status.st_mode & 0777U : 0U;
}

std::string trimmed(std::string text) {
  while (!text.empty() && text.back() == '\n') text.pop_back();
  return text;
}

api::HttpAnswer ask(const Cluster& cluster, const std::string& token, const std::string& method,
                    const std::string& target) {
  const auto address = read_file(cluster.state() / "address");
  REQUIRE(address);
  const auto client = api::HttpClient::connect_to({.url = trimmed(*address), .token = token});
  REQUIRE(client);
  const auto answer = (*client)->request(
      {.method = method, .target = target, .body = method == "POST" ? "{}" : ""});
  REQUIRE(answer);
  return *answer;
}

// Inodes of the sockets that the process has open.
std::set<std::string> sockets_of(pid_t pid) {
  std::set<std::string> out;
  std::error_code failed;
  const std::filesystem::path folder = "/proc/" + std::to_string(pid) + "/fd";
  for (const auto& entry : std::filesystem::directory_iterator(folder, failed)) {
    const std::string target = std::filesystem::read_symlink(entry.path(), failed).string();
    if (target.starts_with("socket:[")) out.insert(target.substr(8, target.size() - 9));
  }
  return out;
}

// Local addresses, as /proc writes them, on which the process listens.
std::vector<std::string> listening(pid_t pid) {
  std::vector<std::string> out;
  const std::set<std::string> sockets = sockets_of(pid);
  for (const char* table : {"/proc/net/tcp", "/proc/net/tcp6"}) {
    std::ifstream file(table);
    std::string line;
    while (std::getline(file, line)) {
      std::istringstream fields(line);
      std::string number, local, remote, state, skip, inode;
      fields >> number >> local >> remote >> state;
      for (int i = 0; i < 5; ++i) fields >> skip;
      fields >> inode;
      if (state == "0A" && sockets.contains(inode)) out.push_back(local.substr(0, local.find(':')));
    }
  }
  return out;
}

}  // namespace

TEST_CASE(
    "cluster: without a token the API answers 401 and nothing else; keys and tokens are private") {
  Cluster cluster(1);
  for (const char* target : {"/api/v1/jobs", "/api/v1/nodes", "/api/v1/events", "/metrics",
                             "/v1/models", "/api/v1/jobs/1/logs", "/no/such/page"}) {
    INFO(target);
    CHECK(ask(cluster, "", "GET", target).status == 401);
    CHECK(ask(cluster, "wrong", "GET", target).status == 401);
  }
  CHECK(ask(cluster, "", "POST", "/api/v1/jobs").status == 401);
  CHECK(ask(cluster, "", "GET", "/healthz").status == 200);
  CHECK(ask(cluster, "", "GET", "/").content_type == "text/html; charset=utf-8");
  CHECK(cluster.get("/api/v1/jobs").status == 200);
  std::size_t secrets = 0;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(cluster.state())) {
    const std::string name = entry.path().filename().string();
    const bool secret =
        name.find("key") != std::string::npos || name == "token" || name == "join.json";
    if (!entry.is_regular_file() || !secret) continue;
    INFO(entry.path());
    CHECK(mode_of(entry.path()) == 0600);
    ++secrets;
  }
  CHECK(secrets >= 3);
  CHECK(cluster.stop() == 0);
}

TEST_CASE("cluster: nothing listens beyond loopback unless told") {
  Cluster cluster(1);
  std::size_t found = 0;
  for (const char* part : {"coordinator", "worker"}) {
    for (const std::string& address : listening(cluster.pid_of(part))) {
      INFO(part);
      CHECK((address == "0100007F" || address == "00000000000000000000000001000000"));
      ++found;
    }
  }
  CHECK(found >= 3);  // HTTP, control plane, liveness
  CHECK(cluster.stop() == 0);
}

TEST_CASE(
    "cluster: quotas that are read again are in the audit, and so is the worker's first key") {
  Cluster cluster(1);
  const auto audit = [&] { return cluster.tutti({"audit"}).out; };
  CHECK(audit().find("worker admit") != std::string::npos);
  const auto file = cluster.state() / "coordinator.yaml";
  REQUIRE(write_file_atomically(file, *read_file(file) + "quotas: {default: \"slots=1\"}\n"));
  REQUIRE(::kill(cluster.pid_of("coordinator"), SIGHUP) == 0);
  CHECK(test::eventually([&] { return audit().find("quotas reload") != std::string::npos; }));
  INFO(audit());
  CHECK(audit().find("coordinator.yaml") != std::string::npos);
  CHECK(cluster.stop() == 0);
}
