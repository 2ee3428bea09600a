// `run` jobs, submits and refusals on a real cluster.
#include <catch2/catch.hpp>

#include <signal.h>
#include <boost/json/parse.hpp>

#include <filesystem>
#include <fstream>
#include <string>

#include "tests/support/cluster.h"
#include "tests/support/temporary_folder.h"

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
  Cluster cluster(1);
  CHECK(cluster.wait(cluster.submit(program("true", "resources: {device: cpu}\n"))) == 0);
  const auto job = cluster.submit(program("true", "resources: {device: gpu}\n"));
  const auto why = cluster.tutti({"explain", std::to_string(job)});
  INFO(why.out << why.err);
  CHECK(why.out.find("no worker has the label device=gpu") != std::string::npos);
  CHECK(cluster.state_of(job) == "queued");
  CHECK(cluster.stop() == 0);
}

namespace {

// A cluster whose worker is told of GPUs by a rank binary that is made up.
struct ClusterOfGpus {
  ClusterOfGpus(unsigned slots, const std::string& devices)
      : cluster({.slots = slots,
                 .rank_binary = written(devices),
                 .environment = {"TUTTI_DEVICE=gpu", "CUDA_VISIBLE_DEVICES=0"}}) {}

  std::filesystem::path written(const std::string& devices) const {
    const auto file = folder.path() / "rank";
    REQUIRE(write_file_atomically(file, "#!/bin/sh\necho '" + devices + "'\n", 0700));
    return file;
  }

  test::TemporaryFolder folder;
  Cluster cluster;
};

std::string device(const std::string& uuid) {
  return R"({"uuid": ")" + uuid + R"(", "name": "made up", "memory_bytes": 1073741824})";
}

}  // namespace

TEST_CASE("cluster: a program sees the GPUs that are leased to its ranks here, by local rank") {
  ClusterOfGpus gpus(3, R"({"profiles": ["sm_90"], "stack": "CUDA 13.0", "devices": [)" +
                            device("GPU-c") + "," + device("GPU-a") + "," + device("GPU-b") + "]}");
  const auto job =
      gpus.cluster.submit(program("echo l=$LOCAL_RANK sees $CUDA_VISIBLE_DEVICES",
                                  "resources: {device: gpu, ranks: {min: 2, max: 2}}\n"));
  CHECK(gpus.cluster.wait(job) == 0);
  const std::string log = gpus.cluster.tutti({"logs", std::to_string(job)}).out;
  INFO(log);
  CHECK(log.find("l=0 sees GPU-c,GPU-a\n") != std::string::npos);
  CHECK(log.find("l=1 sees GPU-c,GPU-a\n") != std::string::npos);
  const auto alone = gpus.cluster.submit(program("echo sees $CUDA_VISIBLE_DEVICES"));
  CHECK(gpus.cluster.wait(alone) == 0);
  const std::string said = gpus.cluster.tutti({"logs", std::to_string(alone)}).out;
  INFO(said);
  CHECK(said.find("sees GPU-c\n") != std::string::npos);
  CHECK(gpus.cluster.stop() == 0);
}

TEST_CASE("cluster: a worker restarted in place keeps the GPUs that its programs compute on") {
  ClusterOfGpus gpus(2, R"({"profiles": ["sm_90"], "stack": "CUDA 13.0", "devices": [)" +
                            device("GPU-a") + "," + device("GPU-b") + "]}");
  const auto slots = [&] {
    const boost::json::value nodes = boost::json::parse(gpus.cluster.get("/api/v1/nodes").body);
    return nodes.at("nodes").at(0).at("slots").to_number<int>();
  };
  const auto go = gpus.folder.path() / "go";
  const auto job = gpus.cluster.submit(program(
      "while [ ! -e " + go.string() + " ]; do sleep 0.05; done", "resources: {device: gpu}\n"));
  REQUIRE(test::eventually([&] { return gpus.cluster.state_of(job) == "running"; }));
  // Whoever asked now would find no room for a context beside the program's.
  gpus.written(R"({"problem": "out of memory"})");
  REQUIRE(gpus.cluster.tutti({"worker", "restart"}).code == 0);
  const auto second = gpus.cluster.submit(program("true", "resources: {device: gpu}\n"));
  CHECK(gpus.cluster.wait(second) == 0);
  CHECK(slots() == 2);
  REQUIRE(write_file_atomically(go, ""));
  CHECK(gpus.cluster.wait(job) == 0);
  CHECK(gpus.cluster.job(job).at("generation").to_number<int>() == 1);
  // With nobody on them it asks again.
  REQUIRE(gpus.cluster.tutti({"worker", "restart"}).code == 0);
  CHECK(test::eventually([&] { return slots() == 0; }));
  CHECK(gpus.cluster.stop() == 0);
}

TEST_CASE("cluster: where no GPU can be used nothing is placed, and node and explain say why") {
  ClusterOfGpus gpus(2, R"({"problem": "the driver is broken: mend it"})");
  const std::string why = "no GPU can be used: the driver is broken: mend it";
  const auto job = gpus.cluster.submit(program("true", "resources: {device: gpu}\n"));
  const auto explained = gpus.cluster.tutti({"explain", std::to_string(job)});
  INFO(explained.out << explained.err);
  CHECK(explained.out.find("no worker has the label device=gpu; on ") != std::string::npos);
  CHECK(explained.out.find(why) != std::string::npos);
  const boost::json::value nodes = boost::json::parse(gpus.cluster.get("/api/v1/nodes").body);
  const boost::json::value& node = nodes.at("nodes").at(0);
  CHECK(node.at("slots").to_number<int>() == 0);
  const std::string name(node.at("name").as_string());
  CHECK(gpus.cluster.tutti({"node", name}).out.find(why) != std::string::npos);
  CHECK(gpus.cluster.state_of(job) == "queued");
  CHECK(gpus.cluster.stop() == 0);
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
