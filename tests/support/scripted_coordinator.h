// A coordinator in the hand of a test: real sockets, no decisions. It welcomes, answers heartbeats,
// acknowledges reports and spools by itself; orders are given and messages waited for by the test.
//
// Threads: the test's; an own one serves the sockets.
#pragma once

#include <condition_variable>
#include <deque>
#include <filesystem>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "protocol/actor/actor_host.h"
#include "protocol/transport/endpoint.h"
#include "protocol/transport/liveness.h"
#include "protocol/wire/link.h"
#include "protocol/wire/sequencer.h"

namespace tutti::test {

class ScriptedCoordinator {
 public:
  // Writes join.json into the folder. `port` 0: the system chooses.
  explicit ScriptedCoordinator(const std::filesystem::path& folder, std::uint16_t port = 0);
  ScriptedCoordinator(const ScriptedCoordinator&) = delete;
  ScriptedCoordinator& operator=(const ScriptedCoordinator&) = delete;
  ~ScriptedCoordinator();

  std::uint16_t port() const { return port_; }
  // From now on every Hello is answered by Refused.
  void refuse(const std::string& code);

  // The next order of the worker's session.
  void order(wire::ToWorker message);

  // The same, of a kind that no version has.
  void order_unknown();

  // The oldest message of this kind that was not waited for yet; nothing after the deadline (10 s).
  template <class T>
  std::optional<T> wait() {
    std::optional<T> out;
    wait_until([&] {
      for (auto at = messages_.begin(); at != messages_.end(); ++at) {
        if (const T* message = std::get_if<T>(&*at)) {
          out = *message;
          messages_.erase(at);
          return true;
        }
      }
      return false;
    });
    return out;
  }

  // Whether the stream has come to hold `text` in time.
  bool wait_text(ProcessId process, wire::Stream stream, const std::string& text);
  // The stream's text once it has ended.
  std::optional<std::string> wait_stream(ProcessId process, wire::Stream stream);

 private:
  void on_frame(const std::string& peer, const std::string& bytes);
  void on_message(const std::string& peer, const wire::FromWorker& message);
  void send(const std::string& peer, const wire::ToWorker& message, Sequence sequence = {});
  void wait_until(const std::function<bool()>& found);

  struct Text {
    std::string bytes;
    bool end = false;
  };

  transport::KeyPair keys_;
  std::uint16_t port_ = 0;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<wire::FromWorker> messages_;
  std::map<std::pair<ProcessId, wire::Stream>, Text> streams_;
  std::string peer_;
  std::string refusal_;
  std::string token_;  // of the liveness connection
  SessionId session_;
  Sequence last_order_;
  wire::ReceiveGate reports_;
  wire::FrameCounters counters_;
  actor::Runtime runtime_;
  std::unique_ptr<actor::ActorHost> host_;
  std::unique_ptr<transport::ServerEndpoint> server_;
  std::unique_ptr<transport::LivenessListener> liveness_;
};

}  // namespace tutti::test
