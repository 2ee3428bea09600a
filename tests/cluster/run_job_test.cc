// `run` jobs, submits and refusals on a real cluster.
#include <catch2/catch.hpp>

#include <signal.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "tests/support/cluster.h"

using namespace tutti;
using test::Cluster;
using test::eventually;
using test::Finished;

namespace {

std::string program(const std::string& script, const std::string& more = {}) {
  return "name: program\nkind: run\ncommand: [sh, -c, '" + script + "']\n" + more;
}

}  // namespace

TEST_CASE("cluster: a program's output is captured, and its exit code decides how the job ended") {
  Cluster cluster;
  const auto good = cluster.submit(program("echo hello from rank $RANK of $WORLD_SIZE"));
  CHECK(cluster.wait(good) == 0);
  CHECK(cluster.state_of(good) == "done");
  CHECK(cluster.tutti({"logs", std::to_string(good)}).out.find("hello from rank 0 of 1") !=
        std::string::npos);
  const auto bad = cluster.submit(program("exit 3"));
  CHECK(cluster.wait(bad) == 1);
  CHECK(cluster.state_of(bad) == "failed");
  const auto missing = cluster.submit("name: x\nkind: run\ncommand: [no-such-program]\n");
  CHECK(cluster.wait(missing) == 1);
  CHECK(cluster.stop() == 0);
}

TEST_CASE("cluster: a job runs where its kind of device is, and is told where there is none") {
  Cluster cluster(test::ClusterOptions{.slots = 1, .environment = {"TUTTI_DEVICE=gpu"}});
  CHECK(cluster.wait(cluster.submit(program("true", "resources: {device: gpu}\n"))) == 0);
  const auto job = cluster.submit(program("true", "resources: {device: cpu}\n"));
  const auto why = cluster.tutti({"explain", std::to_string(job)});
  INFO(why.out << why.err);
  CHECK(why.out.find("no worker has the label device=cpu") != std::string::npos);
  CHECK(cluster.state_of(job) == "queued");
  CHECK(cluster.stop() == 0);
}

TEST_CASE("cluster: a gang of programs finds its first rank by torchrun's variables") {
  Cluster cluster;
  const std::string script =
      "echo r=$RANK w=$WORLD_SIZE l=$LOCAL_RANK a=$MASTER_ADDR c=$TORCHELASTIC_RESTART_COUNT";
  const auto job = cluster.submit(program(script, "resources: {ranks: {min: 2, max: 2}}\n"));
  CHECK(cluster.wait(job) == 0);
  const std::string log = cluster.tutti({"logs", std::to_string(job)}).out;
  CHECK(log.find("r=0 w=2 l=0 a=127.0.0.1 c=0") != std::string::npos);
  CHECK(log.find("r=1 w=2 l=1 a=127.0.0.1 c=0") != std::string::npos);
  CHECK(cluster.stop() == 0);
}

TEST_CASE("cluster: a cancelled program is gone with its grandchildren, and so is one at the end") {
  Cluster cluster;
  const auto job = cluster.submit(program("sleep 1000 & setsid sleep 1000 & echo up; wait"));
  REQUIRE(eventually([&] {
    return cluster.tutti({"logs", std::to_string(job)}).out.find("up") != std::string::npos;
  }));
  CHECK(cluster.tutti({"cancel", std::to_string(job), "--reason", "enough"}).code == 0);
  CHECK(cluster.wait(job) != 0);
  CHECK(cluster.state_of(job) == "cancelled");
  CHECK(worker::find_marked({"TUTTI_JOB=" + std::to_string(job),
                             "TUTTI_WORKER_MARK=" + (cluster.state() / "worker").string()})
            .empty());
  const auto running = cluster.submit(program("sleep 1000 & setsid sleep 1000 & echo up; wait"));
  REQUIRE(eventually([&] { return cluster.state_of(running) == "running"; }));
  CHECK(cluster.stop() == 0);
}

TEST_CASE(
    "cluster: a program whose process is killed from elsewhere is started again, and ends well") {
  Cluster cluster;
  const auto flag = (cluster.files() / "second").string();
  const auto job = cluster.submit(
      program("if [ -e " + flag + " ]; then exit 0; fi; touch " + flag + "; kill -9 $$"));
  CHECK(cluster.wait(job) == 0);
  CHECK(cluster.job(job).at("generation").to_number<int>() == 2);
  CHECK(cluster.stop() == 0);
}

TEST_CASE("cluster: what a program's log says decides whether it is tried again") {
  Cluster cluster;
  const std::string rules =
      "retries: {user: 0, infrastructure: 3, on: [{log: link is down, class: infrastructure}]}\n";
  const auto flag = (cluster.files() / "second").string();
  const auto again = cluster.submit(program(
      "if [ -e " + flag + " ]; then exit 0; fi; touch " + flag + "; echo the link is down; exit 7",
      rules));
  CHECK(cluster.wait(again) == 0);
  CHECK(cluster.job(again).at("generation").to_number<int>() == 2);
  const auto once = cluster.submit(program("echo wrong data; exit 7", rules));
  CHECK(cluster.wait(once) == 1);
  CHECK(cluster.job(once).at("generation").to_number<int>() == 1);
  CHECK(cluster.stop() == 0);
}

TEST_CASE(
    "cluster: an acknowledged submit is there after kill -9 of the coordinator, and its key still "
    "names it") {
  Cluster cluster;
  const auto before = cluster.pid_of("coordinator");
  const auto job = cluster.submit(program("echo once"), {"--key", "k1"});
  cluster.kill_part("coordinator");
  REQUIRE(eventually([&] {
    const pid_t now = cluster.pid_of("coordinator");
    return now > 0 && now != before && cluster.get("/healthz").status == 200;
  }));
  CHECK(cluster.submit(program("echo once"), {"--key", "k1"}) == job);
  const auto file = cluster.files() / "other.yaml";
  REQUIRE(write_file_atomically(file, program("echo something else")));
  const Finished other = cluster.tutti({"submit", file.string(), "--key", "k1"});
  CHECK(other.code != 0);
  CHECK(other.err.find("k1") != std::string::npos);
  CHECK(cluster.wait(job) == 0);
  const auto listed = cluster.get("/api/v1/jobs");
  CHECK(listed.body.find("\"id\":" + std::to_string(job)) != std::string::npos);
  CHECK(listed.body.find("\"id\":" + std::to_string(job + 1)) == std::string::npos);
  CHECK(cluster.stop() == 0);
}

TEST_CASE("cluster: where memory is short the kernel ends ranks before workers before the rest") {
  Cluster cluster;
  const auto job = cluster.submit(program("sleep 1000"));
  REQUIRE(eventually([&] { return cluster.state_of(job) == "running"; }));
  const auto score = [](pid_t pid) {
    const auto text = read_file("/proc/" + std::to_string(pid) + "/oom_score_adj");
    REQUIRE(text);
    return std::stoi(*text);
  };
  const int worker = score(cluster.pid_of("worker"));
  CHECK(worker > score(cluster.pid_of("coordinator")));
  const auto programs =
      worker::find_marked({"TUTTI_JOB=" + std::to_string(job),
                           "TUTTI_WORKER_MARK=" + (cluster.state() / "worker").string()});
  CHECK_FALSE(programs.empty());
  for (const pid_t pid : programs) CHECK(score(pid) > worker);
  CHECK(cluster.stop() == 0);
}

TEST_CASE("cluster: a running program survives kill -9 of the coordinator in the same process") {
  Cluster cluster;
  const auto go = (cluster.files() / "go").string();
  const auto job = cluster.submit(
      program("echo pid $$; while [ ! -e " + go + " ]; do sleep 0.05; done; echo end"));
  REQUIRE(eventually([&] { return cluster.state_of(job) == "running"; }));
  cluster.kill_part("coordinator");
  REQUIRE(eventually([&] { return cluster.state_of(job) == "running"; }));
  std::ofstream(go).put('\n');
  CHECK(cluster.wait(job) == 0);
  CHECK(cluster.job(job).at("generation").to_number<int>() == 1);
  const std::string log = cluster.tutti({"logs", std::to_string(job)}).out;
  CHECK(log.find("end") != std::string::npos);
  CHECK(log.find("pid") == log.rfind("pid"));
  CHECK(cluster.stop() == 0);
}

TEST_CASE("cluster: after a stop with a job at work the next start goes on with it") {
  const test::TemporaryFolder shared;
  const auto job_script = "test -e " + (shared.path() / "go").string() + " || sleep 1000";
  Cluster cluster;
  const auto job = cluster.submit(program(job_script));
  REQUIRE(eventually([&] { return cluster.state_of(job) == "running"; }));
  CHECK(cluster.stop() == 0);
  std::ofstream(shared.path() / "go").put('\n');
  cluster.start();
  CHECK(cluster.wait(job) == 0);
  CHECK(cluster.stop() == 0);
}
