// Keeping a cluster well, by the command line: tokens, backup and restore, doctor, top, help.
#include <catch2/catch.hpp>

#include <boost/json/array.hpp>
#include <boost/json/parse.hpp>
#include <boost/json/value_to.hpp>

#include <filesystem>
#include <fstream>
#include <sstream>

#include "tests/support/cluster.h"

using namespace tutti;
using test::Cluster;

namespace {

std::string trimmed(std::string text) {
  while (!text.empty() && text.back() == '\n') text.pop_back();
  return text;
}

const char* const kSpec = "name: hello\nkind: run\ncommand: [echo, hello]\n";

// The verbs as `tutti help` lists them: two spaces, the name, what it takes, two or more spaces.
std::vector<std::string> listed_verbs() {
  std::vector<std::string> out;
  std::istringstream lines(test::run_tutti({"help"}).out);
  std::string line;
  bool verbs = false;
  while (std::getline(lines, line)) {
    if (line.ends_with(":") && !line.starts_with(" ")) verbs = true;
    if (!verbs || !line.starts_with("  ") || line.size() < 4) continue;
    std::istringstream words(line);
    std::string first;
    std::string second;
    words >> first >> second;
    const bool two = first == "token" || first == "ledger" || first == "fault" || first == "spec" ||
                     first == "keys" || (first == "worker" && second == "restart");
    out.push_back(two ? first + ' ' + second : first);
  }
  return out;
}

}  // namespace

TEST_CASE("cli: every verb explains itself with an example") {
  const std::vector<std::string> verbs = listed_verbs();
  REQUIRE(verbs.size() > 25);
  for (const std::string& verb : verbs) {
    if (verb == "generate" || verb == "score" || verb == "tokenize" || verb == "tokenizer")
      continue;  // of tutti-rank
    std::vector<std::string> words;
    std::istringstream split(verb);
    for (std::string word; split >> word;) words.push_back(word);
    words.emplace_back("--help");
    const auto help = test::run_tutti(words);
    INFO(verb << "\n" << help.out << help.err);
    CHECK(help.code == 0);
    CHECK(help.out.find("Examples:\n  tutti " + verb) != std::string::npos);
  }
}

TEST_CASE("cluster: a user's token submits and cancels its own, and ends when it is revoked") {
  Cluster cluster(1);
  const std::string token = trimmed(cluster.tutti({"token", "create", "ann"}).out);
  const auto as_ann = [&](const std::vector<std::string>& words) {
    return test::run_tutti(words,
                           {"TUTTI_STATE=" + cluster.state().string(), "TUTTI_TOKEN=" + token});
  };
  const auto job = cluster.submit(kSpec);
  REQUIRE(cluster.wait(job) == 0);
  CHECK(as_ann({"jobs"}).code == 0);
  const auto refused = as_ann({"cancel", std::to_string(job)});
  CHECK(refused.code == 5);
  CHECK(refused.err.find("belongs to admin") != std::string::npos);
  CHECK(as_ann({"token", "list"}).code == 5);
  CHECK(cluster.tutti({"token", "list"}).out.find("ann") != std::string::npos);
  const std::string list = cluster.tutti({"token", "list", "-o", "json"}).out;
  const std::size_t at = list.find("\"user\":\"ann\"");
  REQUIRE(at != std::string::npos);
  const std::size_t id = list.rfind("\"id\":", at) + 5;
  CHECK(cluster.tutti({"token", "revoke", list.substr(id, list.find(',', id) - id)}).code == 0);
  CHECK(as_ann({"jobs"}).code == 5);
  CHECK(cluster.tutti({"audit"}).out.find("token revoke") != std::string::npos);
  CHECK(cluster.stop() == 0);
}

TEST_CASE("cluster: a backup that was made while it ran brings the jobs back") {
  Cluster cluster(1);
  const auto job = cluster.submit(kSpec);
  REQUIRE(cluster.wait(job) == 0);
  const std::string file = (cluster.files() / "backup").string();
  const auto made = cluster.tutti({"ledger", "backup", file});
  INFO(made.err);
  REQUIRE(made.code == 0);
  CHECK(cluster.tutti({"ledger", "check", file}).out.find("1 job,") != std::string::npos);
  const std::vector<std::string> restore{"ledger", "restore", file};
  CHECK(cluster.tutti(restore).code == 2);  // a coordinator runs there
  const auto later = cluster.submit(kSpec);
  REQUIRE(cluster.wait(later) == 0);
  REQUIRE(cluster.stop() == 0);
  REQUIRE(cluster.tutti(restore).code == 0);
  cluster.start();
  CHECK(cluster.state_of(job) == "done");
  CHECK(cluster.get("/api/v1/jobs/" + std::to_string(later)).status == 404);
  // What ran after the backup is no part of the job that is submitted now.
  const auto next = cluster.submit("name: x\nkind: run\ncommand: [echo, anew]\n");
  CHECK(next > later);
  REQUIRE(cluster.wait(next) == 0);
  CHECK(test::eventually([&] {
    return cluster.tutti({"logs", std::to_string(next)}).out == "anew\n";
  }));
  CHECK(cluster.stop() == 0);
}

TEST_CASE("cluster: doctor and top say how it is, also where the output is no terminal") {
  Cluster cluster(2);
  const auto doctor = cluster.tutti({"doctor", "--cluster"});
  INFO(doctor.out << doctor.err);
  CHECK(doctor.code == 0);
  CHECK(doctor.out.find("1 with 2 slots") != std::string::npos);
  CHECK(doctor.out.find("no problems") != std::string::npos);
  const auto top = cluster.tutti({"top"});
  CHECK(top.code == 0);
  CHECK(top.out.find("0 of 2 in use") != std::string::npos);
  CHECK(cluster.tutti({"top", "-o", "json", "--count", "1"}).out.find("\"slots\":2") !=
        std::string::npos);
  CHECK(cluster.stop() == 0);
  const auto dead = cluster.tutti({"doctor", "--cluster"});
  INFO(dead.out);
  CHECK(dead.code == 5);
  CHECK(dead.out.find("1 problem") != std::string::npos);
}

TEST_CASE("cluster: new keys while jobs run: the worker finds the coordinator after its restart") {
  Cluster cluster(1);
  const auto job = cluster.submit("name: long\nkind: run\ncommand: [sleep, '4']\n");
  REQUIRE(test::eventually([&] { return cluster.state_of(job) == "running"; }));
  REQUIRE(cluster.tutti({"keys", "rotate", "--overlap", "1s"}).code == 0);
  cluster.kill_part("coordinator");
  REQUIRE(cluster.wait(job) == 0);
  CHECK(cluster.job(job).at("generation").to_number<int>() == 1);
  CHECK(cluster.stop() == 0);
}

TEST_CASE("cluster: a worker that is restarted in place keeps its programs, and is told apart") {
  Cluster cluster(1);
  const auto go = (cluster.files() / "go").string();
  const auto job = cluster.submit("name: long\nkind: run\ncommand: [sh, -c, 'while [ ! -e " + go +
                                  " ]; do sleep 0.05; done']\n");
  REQUIRE(test::eventually([&] { return cluster.state_of(job) == "running"; }));
  const pid_t before = cluster.pid_of("worker");
  const auto restarted = cluster.tutti({"worker", "restart"});
  INFO(restarted.out << restarted.err);
  REQUIRE(restarted.code == 0);
  CHECK(restarted.out.find("pid " + std::to_string(before)) != std::string::npos);
  // With a configuration that the next one could not read it goes on as it is, and says so.
  const auto config = cluster.state() / "worker.yaml";
  const auto good = read_file(config);
  REQUIRE(good);
  REQUIRE(write_file_atomically(config, *good + "slotz: 3\n"));
  const auto kept = cluster.tutti({"worker", "restart"});
  CHECK(kept.code == 5);
  CHECK(kept.err.find("goes on as it is") != std::string::npos);
  CHECK(kept.err.find("slotz") != std::string::npos);
  CHECK(cluster.pid_of("worker") == before);
  CHECK(test::eventually([&] {
    return cluster.tutti({"events"}).out.find("was not restarted") != std::string::npos;
  }));
  REQUIRE(write_file_atomically(config, *good));
  CHECK(cluster.tutti({"worker", "restart"}).code == 0);
  std::ofstream(go).put('\n');
  CHECK(cluster.wait(job) == 0);
  CHECK(cluster.job(job).at("generation").to_number<int>() == 1);
  CHECK(cluster.tutti({"worker", "restart", "--state", cluster.files().string()}).code == 2);
  CHECK(cluster.stop() == 0);
}

TEST_CASE("cluster: a node that is cut off is lost after its lease, and comes back by itself") {
  const test::TemporaryFolder folder;
  const auto state = folder.path() / "state";
  std::filesystem::create_directories(state);
  REQUIRE(write_file_atomically(state / "coordinator.yaml",
                                "state: " + state.string() + "\nlease_ms: 2000\n"));
  Cluster cluster(1, state);  // the cut is three leases long, so that nobody can miss it
  const auto state_of_node = [&] {
    const boost::json::value nodes = boost::json::parse(cluster.get("/api/v1/nodes").body);
    return boost::json::value_to<std::string>(nodes.at("nodes").as_array().at(0).at("state"));
  };
  const std::string nodes = cluster.tutti({"nodes", "-o", "json"}).out;
  const std::string name = boost::json::value_to<std::string>(
      boost::json::parse(nodes).at("nodes").as_array().at(0).at("name"));
  CHECK(cluster.tutti({"fault", "cut", "nobody"}).code == 2);
  REQUIRE(cluster.tutti({"fault", "cut", name, "--for", "6s"}).code == 0);
  CHECK(test::eventually([&] { return state_of_node() != "ready"; }));  // suspect, for a second
  CHECK(test::eventually([&] { return state_of_node() == "lost"; }));
  CHECK(test::eventually([&] { return state_of_node() == "ready"; }));
  CHECK(cluster.tutti({"fault", "heal", name}).code == 0);
  CHECK(cluster.stop() == 0);
}

TEST_CASE("cluster: a plan says whether a job would start at once, wait or never fit") {
  Cluster cluster(1);
  const auto file = cluster.files() / "job.yaml";
  REQUIRE(write_file_atomically(file, "name: long\nkind: run\ncommand: [sleep, '60']\n"));
  const auto planned = [&](std::vector<std::string> more = {}) {
    more.insert(more.begin(), {"plan", file.string()});
    return cluster.tutti(more);
  };
  CHECK(planned().out.starts_with("starts at once\n"));
  CHECK(planned().code == 0);
  const auto wide = planned({"--set", "resources.ranks=2"});
  CHECK(wide.code == 5);
  CHECK(wide.out.starts_with("needs 2 slots, and the cluster has 1 that suit it\n"));
  const auto holder = cluster.submit("name: long\nkind: run\ncommand: [sleep, '60']\n");
  REQUIRE(test::eventually([&] { return cluster.state_of(holder) == "running"; }));
  CHECK(planned().code == 0);
  CHECK(planned().out.find("held by job " + std::to_string(holder)) != std::string::npos);
  CHECK(cluster.tutti({"fault", "stop-rank", std::to_string(holder), "0"}).code == 0);
  CHECK(cluster.tutti({"fault", "continue-rank", std::to_string(holder), "0"}).code == 0);
  CHECK(cluster.tutti({"cancel", std::to_string(holder)}).code == 0);
  CHECK(cluster.stop() == 0);
}
