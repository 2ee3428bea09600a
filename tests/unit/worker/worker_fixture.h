// A WorkerState with a clock in the test's hand and builders for what it is told.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "worker/agent/worker_state.h"

namespace tutti::worker::test {

using namespace std::chrono_literals;

// The effects of one kind, in order.
template <class T>
std::vector<T> all(const Effects& effects) {
  std::vector<T> out;
  for (const Effect& effect : effects) {
    if (const T* one = std::get_if<T>(&effect)) out.push_back(*one);
  }
  return out;
}

// The messages of one kind that were sent to the coordinator, in order.
template <class T>
std::vector<T> sent(const Effects& effects) {
  std::vector<T> out;
  for (const SendToCoordinator& one : all<SendToCoordinator>(effects)) {
    if (const T* message = std::get_if<T>(&one.message)) out.push_back(*message);
  }
  return out;
}

template <class T>
std::vector<T> told_rank(const Effects& effects) {
  std::vector<T> out;
  for (const SendToRank& one : all<SendToRank>(effects)) {
    if (const T* message = std::get_if<T>(&one.message)) out.push_back(*message);
  }
  return out;
}

inline WorkerSettings settings() {
  WorkerSettings out;
  out.hello.worker = "node-a";
  out.hello.slots = 4;
  out.hello.faults = true;
  return out;
}

class Worker {
 public:
  explicit Worker(WorkerSettings with = settings()) : state(std::move(with)) { state.start(now); }

  Effects on(const Input& input) { return state.on(now, input); }

  Effects after(Duration wait) {
    now = now + wait;
    return on(Tick{});
  }

  // Greets and is welcomed into the next session.
  Effects join() {
    const auto hello = sent<wire::Hello>(on(Connected{}));
    return on(FrameReceived{
        .session = {},
        .sequence = {},
        .message = wire::Welcome{.session = SessionId{++last_session},
                                 .heartbeat_ms = 500,
                                 .lease_ms = 5000,
                                 .liveness_port = 1234,
                                 .liveness_token = "token",
                                 .greeting = hello.empty() ? 0 : hello.front().greeting}});
  }

  Effects lose_link() {
    last_order = 0;
    return on(LinkLost{.session = state.session()});
  }

  // The next order of this session.
  Effects order(wire::ToWorker message) { return frame(std::move(message), ++last_order); }

  Effects frame(wire::ToWorker message, std::uint64_t sequence = 0) {
    return on(FrameReceived{
        .session = state.session(), .sequence = Sequence{sequence}, .message = std::move(message)});
  }

  SessionId session() const { return state.session(); }

  Instant now{1h};
  WorkerState state;
  std::uint64_t last_session = 0;
  std::uint64_t last_order = 0;
};

inline wire::StartRank start_rank(std::uint64_t process, std::uint64_t generation = 1) {
  wire::StartRank out;
  out.job = JobId{7};
  out.generation = Generation{generation};
  out.process = ProcessId{process};
  out.rank = static_cast<std::uint32_t>(process - 1);
  out.size = 2;
  out.slot = out.rank;
  out.kind = "train";
  return out;
}

inline wire::RankReady rank_ready(std::uint64_t process, std::uint64_t generation = 1) {
  wire::RankReady out;
  out.job = JobId{7};
  out.generation = Generation{generation};
  out.process = ProcessId{process};
  out.address = "unix:/tmp/x";
  return out;
}

inline wire::Regroup regroup(std::uint64_t process, std::uint64_t generation) {
  return {.job = JobId{7},
          .generation = Generation{generation},
          .process = ProcessId{process},
          .rank = 0,
          .size = 2};
}

inline wire::FormGroup form_group(std::uint64_t process, std::uint64_t generation = 1) {
  wire::FormGroup out;
  out.job = JobId{7};
  out.generation = Generation{generation};
  out.process = ProcessId{process};
  out.addresses = {"127.0.0.1:4001", "127.0.0.1:4002"};
  return out;
}

inline wire::StopRank stop_rank(std::uint64_t process) {
  return {.job = JobId{7}, .process = ProcessId{process}, .grace_ms = 5000, .reason = "cancelled"};
}

inline ProcessExited exited(std::uint64_t process, std::int32_t code, std::int32_t signal = 0) {
  return {.process = ProcessId{process}, .code = code, .signal = signal, .seen_unix_ms = 99};
}

}  // namespace tutti::worker::test
