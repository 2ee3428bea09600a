// A whole cluster of real processes for a test: `tutti up` on a folder of its own, spoken to by the
// command line and by HTTP, and ended with everything that it started.
//
// Every process of it inherits one variable with a value of its own, by which the fixture finds
// what is left of it.
//
// Limits: every wait has a deadline. Threads: the test's.
#pragma once

#include <signal.h>

#include <boost/json/value.hpp>

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "coordinator/api/http_client.h"
#include "tests/support/temporary_folder.h"
#include "worker/launcher/launcher.h"

namespace tutti::test {

struct Finished {
  int code = -1;  // 128 + signal, as a shell has it; -1: it was killed at its deadline
  std::string out;
  std::string err;
};

// Runs $TUTTI_BIN/tutti with these words and, besides PATH, this environment.
Finished run_tutti(const std::vector<std::string>& words,
                   const std::vector<std::string>& environment = {},
                   std::chrono::seconds deadline = std::chrono::seconds(60));

// Whether the signal was sent to the process and not taken by it until now.
bool is_pending(pid_t pid, int signal);

// Asks until the answer is yes; whether it was before the deadline.
bool eventually(const std::function<bool()>& holds,
                std::chrono::seconds deadline = std::chrono::seconds(60));

struct ClusterOptions {
  unsigned slots = 2;
  std::filesystem::path rank_binary = {};     // empty: $TUTTI_TEST_RANK or tutti-rank
  std::vector<std::string> environment = {};  // of its processes, besides PATH
};

class Cluster {
 public:
  // Ready when it returns; a test failure otherwise.
  explicit Cluster(unsigned slots = 2);
  explicit Cluster(const ClusterOptions& options);
  // On a state folder of the test's.
  Cluster(unsigned slots, std::filesystem::path state);
  Cluster(const Cluster&) = delete;
  Cluster& operator=(const Cluster&) = delete;
  ~Cluster();

  const std::filesystem::path& state() const { return state_; }
  const std::filesystem::path& files() const { return folder_.path(); }  // the test's own

  Finished tutti(const std::vector<std::string>& words,
                 std::chrono::seconds deadline = std::chrono::seconds(60)) const;
  api::HttpAnswer get(const std::string& target) const;
  api::HttpAnswer post(const std::string& target, const std::string& body) const;

  // Writes the spec into a file and submits it; the job's id.
  std::uint64_t submit(const std::string& yaml, const std::vector<std::string>& options = {}) const;
  // Exit code of `tutti wait`.
  int wait(std::uint64_t job) const;
  boost::json::value job(std::uint64_t id) const;
  std::string state_of(std::uint64_t job) const;
  std::uint64_t step_of(std::uint64_t job) const;
  // Weight hashes by step; a step that is recorded twice is a test failure.
  std::map<std::uint64_t, std::string> hashes(std::uint64_t job) const;

  // "coordinator" or "worker"; 0 while it does not run.
  pid_t pid_of(const std::string& part) const;
  std::vector<pid_t> ranks_of(std::uint64_t job) const;
  void kill_part(const std::string& part) const;

  // One more worker beside that of `tutti up`, as on another machine; it is not started again.
  // `join`: a copy of join.json that it has of its own.
  void add_worker(const std::string& name, unsigned slots, std::filesystem::path join = {});
  void kill_worker(const std::string& name);

  // As Ctrl-C would; its exit code. Checks that nothing of it is left.
  int stop(int signal = SIGTERM);
  // To `tutti up` alone, without waiting for what it does.
  void signal(int number) const;
  // "coordinator" or "worker".
  std::string log_of(const std::string& part) const;
  // Again on the same state, after stop().
  void start();

 private:
  api::HttpAnswer ask(const api::HttpRequest& request) const;

  std::vector<std::string> environment() const;

  ClusterOptions options_;
  TemporaryFolder folder_;
  std::filesystem::path state_;
  std::string mark_;
  std::optional<worker::Launched> up_;
  std::map<std::string, worker::Launched> workers_;  // added ones
};

// Deterministic prose of about `words` words, enough for a small tokenizer.
std::string some_prose(std::size_t words);

}  // namespace tutti::test
