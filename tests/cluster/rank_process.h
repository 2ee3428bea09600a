// A real tutti-rank under the test's hand: started as a worker would, told orders, its reports
// read.
#pragma once

#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>
#include <catch2/catch.hpp>

#include <cstdlib>
#include <optional>
#include <string>
#include <vector>

#include "protocol/transport/pipe_link.h"
#include "protocol/wire/link.h"
#include "tests/support/patience.h"

namespace tutti::test {

class RankProcess {
 public:
  // `file_bytes_max`: no file that it writes grows beyond this, as on a full disk; 0: no limit.
  explicit RankProcess(std::uint64_t process, std::uint64_t file_bytes_max = 0)
      : process_{process} {
    auto pair = transport::make_pipe_pair();
    REQUIRE(pair.ok());
    const char* const bin = std::getenv("TUTTI_BIN");
    const std::string binary = std::string(bin != nullptr ? bin : "build/bin") + "/tutti-rank";
    const int theirs = pair->second.get();
    const std::string variable = "TUTTI_RANK_FD=" + std::to_string(theirs);
    pid_ = ::fork();
    REQUIRE(pid_ >= 0);
    if (pid_ == 0) {
      ::fcntl(theirs, F_SETFD, 0);
      const rlimit limit{file_bytes_max, file_bytes_max};
      if (file_bytes_max != 0) (void)::setrlimit(RLIMIT_FSIZE, &limit);
      ::putenv(const_cast<char*>(variable.c_str()));
      ::execl(binary.c_str(), "tutti-rank", "run", nullptr);
      ::_exit(127);
    }
    link_.emplace(std::move(pair->first));
  }
  RankProcess(const RankProcess&) = delete;
  RankProcess& operator=(const RankProcess&) = delete;
  ~RankProcess() {
    if (pid_ > 0) {
      ::kill(pid_, SIGKILL);
      (void)wait_for_end();
    }
  }

  template <class Order>
  void tell(Order order) {
    order.job = JobId{1};
    order.process = process_;
    const auto frame = wire::encode_frame<wire::ToRank>(order);
    REQUIRE(frame.ok());
    (void)link_->send(*frame, patient(std::chrono::seconds(10)));
  }

  // The next report of this type; step records and progress on the way are kept, anything else is a
  // failure.
  template <class Report>
  Report next() {
    for (;;) {
      auto frame = link_->receive_within(patient(std::chrono::seconds(60)));
      INFO((frame ? std::string() : frame.error().message));
      REQUIRE(frame.ok());
      const auto decoded = wire::decode_frame<wire::FromRank>(*frame, counters_);
      REQUIRE(decoded.ok());
      if (const auto* report = std::get_if<Report>(&decoded->message)) return *report;
      if (const auto* step = std::get_if<wire::StepReported>(&decoded->message)) {
        steps_.push_back(step->line);
        continue;
      }
      const bool passing = std::holds_alternative<wire::RankProgress>(decoded->message) ||
                           std::holds_alternative<wire::FirstStepDone>(decoded->message);
      INFO("unexpected: " << wire::message_name(decoded->message));
      REQUIRE(passing);
    }
  }

  // Step records so far, as they came.
  const std::vector<std::string>& steps() const { return steps_; }

  void kill() { REQUIRE(::kill(pid_, SIGKILL) == 0); }
  void close_link() { link_->shut_down(); }

  // Exit code, or minus the signal.
  int wait_for_end() {
    int status = 0;
    REQUIRE(::waitpid(pid_, &status, 0) == pid_);
    pid_ = -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
  }

 private:
  ProcessId process_;
  pid_t pid_ = -1;
  std::optional<transport::PipeLink> link_;
  wire::FrameCounters counters_;
  std::vector<std::string> steps_;
};

}  // namespace tutti::test
