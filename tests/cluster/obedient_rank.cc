// A rank that does what it is told and nothing else: tests of the worker run it in tutti-rank's
// place.
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <string>

#include "protocol/transport/pipe_link.h"
#include "protocol/wire/link.h"

using namespace tutti;

namespace {

constexpr Duration kDeadline = std::chrono::seconds(5);

class Rank {
 public:
  explicit Rank(int socket) : link_(FileDescriptor(socket)) {}

  int run() {
    wire::FrameCounters counters;
    for (;;) {
      const auto bytes = link_.receive();
      if (!bytes) return 3;
      const auto frame = wire::decode_frame<wire::ToRank>(*bytes, counters);
      if (!frame) return 4;
      if (std::holds_alternative<wire::StopRank>(frame->message)) return 0;
      std::visit([this](const auto& message) { on(message); }, frame->message);
    }
  }

 private:
  void on(const wire::StartRank& order) {
    start_ = order;
    std::printf("rank %u begins\n", order.rank);
    std::fflush(stdout);
    ready(order.generation);
  }
  void on(const wire::Regroup& order) { ready(order.generation); }
  void on(const wire::FormGroup& order) {
    wire::GroupFormed formed;
    formed.job = order.job;
    formed.generation = order.generation;
    formed.process = order.process;
    say(formed);
    for (int step = 1; step <= 3; ++step) {
      wire::StepReported record;
      record.job = order.job;
      record.generation = order.generation;
      record.process = order.process;
      record.line = "{\"step\":" + std::to_string(step) + "}";
      say(record);
    }
  }
  template <class Order>
  void on(const Order&) {}

  void ready(Generation generation) {
    wire::RankReady message;
    message.job = start_.job;
    message.generation = generation;
    message.process = start_.process;
    message.rank = start_.rank;
    message.address = "unix:nowhere";
    say(message);
  }

  void say(const wire::FromRank& message) {
    const auto frame = wire::encode_frame(message);
    if (!frame || !link_.send(*frame, kDeadline)) std::_Exit(3);
  }

  transport::PipeLink link_;
  wire::StartRank start_;
};

}  // namespace

int main() {
  const char* socket = std::getenv("TUTTI_RANK_FD");
  return socket == nullptr ? 2 : Rank(std::atoi(socket)).run();
}
