// A full disk: submits are refused, checkpoints fail, jobs go on.
#include <catch2/catch.hpp>

#include <fcntl.h>
#include <sys/mount.h>
#include <unistd.h>

#include "protocol/base/file.h"
#include "tests/cluster/training_specs.h"
#include "tests/support/skip.h"

using namespace tutti;
using test::Cluster;
using test::eventually;
using test::training_spec;

namespace {

constexpr std::uint64_t kLogBytesMax = std::uint64_t{1} << 24;

// A small disk of memory; not there if this process may not mount.
class SmallDisk {
 public:
  SmallDisk() : mounted_(::mount("tmpfs", folder_.path().c_str(), "tmpfs", 0, "size=64m") == 0) {}
  SmallDisk(const SmallDisk&) = delete;
  SmallDisk& operator=(const SmallDisk&) = delete;
  ~SmallDisk() {
    if (mounted_) ::umount2(folder_.path().c_str(), MNT_DETACH);
  }

  bool mounted() const { return mounted_; }
  std::filesystem::path path() const { return folder_.path(); }

  void fill() const {
    const FileDescriptor file(
        ::open(ballast().c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600));
    REQUIRE(file);
    const std::string block(std::size_t{64} << 10, 'x');
    std::size_t bytes = block.size();
    while (bytes > 0) {
      if (::write(file.get(), block.data(), bytes) < 0) bytes /= 2;
    }
  }
  void free() const { std::filesystem::remove(ballast()); }

 private:
  std::filesystem::path ballast() const { return folder_.path() / "ballast"; }

  test::TemporaryFolder folder_;
  bool mounted_;
};

}  // namespace

TEST_CASE(
    "cluster: on a full disk submits get 503 and checkpoints fail, but the run goes on to the same "
    "end") {
  const SmallDisk disk;
  if (!disk.mounted()) return test::skip("no right to mount a small disk");
  Cluster cluster(2, disk.path() / "state");
  const auto text = test::write_prose(cluster.files());
  const std::string spec = training_spec(text, {.ranks = 2, .steps = test::kEndless, .every = 2});
  const auto job = cluster.submit(spec);
  REQUIRE(eventually([&] { return cluster.step_of(job) >= 20; }));
  int accepted = 1;
  const auto submit = [&](const std::string& key) {
    const auto answer = cluster.post(
        "/api/v1/jobs",
        R"({"spec": "name: x\nkind: run\ncommand: [\"true\"]\n", "key": ")" + key + "\"}");
    if (answer.status == 200) ++accepted;
    return answer.status;
  };
  int submits = 0;
  // Whatever the job prunes meanwhile is filled again.
  const auto fill_until_refused = [&] {
    return eventually([&] {
      disk.fill();
      return submit("full " + std::to_string(++submits)) == 503;
    });
  };
  // Events and ends are read once they are durable, so how many checkpoints were tried meanwhile is
  // known afterwards, and depends on the machine.
  CHECK(
      eventually([&] {
        REQUIRE(fill_until_refused());
        static_cast<void>(eventually([&] { return disk.fill(), false; }, std::chrono::seconds(1)));
        disk.free();
        int status = 0;
        const bool taken = eventually([&] {
          status = submit("free " + std::to_string(++submits));
          return status == 200;
        });
        INFO("the last submit got "
             << status << "\n"
             << read_file(cluster.state() / "coordinator.log", kLogBytesMax)->c_str());
        REQUIRE(taken);
        return cluster.tutti({"events", std::to_string(job), "-o", "json"})
                   .out.find("checkpoint_failed") != std::string::npos;
      }));
  CHECK(cluster.job(job).at("generation").to_number<int>() == 1);
  // The audit has what was done, and nothing of what the disk did not take.
  const std::string audit = cluster.tutti({"audit", "-o", "json"}).out;
  const std::string line = "\"action\":\"submit\"";
  int audited = 0;
  for (std::size_t at = audit.find(line); at != std::string::npos; at = audit.find(line, at + 1))
    ++audited;
  CHECK(audited == accepted);
  test::check_undisturbed(cluster, job, spec);
  CHECK(cluster.stop() == 0);
}

TEST_CASE("cluster: one that was stopped starts again on a full disk") {
  const SmallDisk disk;
  if (!disk.mounted()) return test::skip("no right to mount a small disk");
  Cluster cluster(1, disk.path() / "state");
  REQUIRE(cluster.stop() == 0);
  disk.fill();
  cluster.start();
  disk.free();
  CHECK(eventually([&] {
    const auto answer =
        cluster.post("/api/v1/jobs", R"({"spec": "name: x\nkind: run\ncommand: [\"true\"]\n"})");
    return answer.status == 200;
  }));
  CHECK(cluster.stop() == 0);
}
