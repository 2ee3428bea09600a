// The bare TCP connection beside a worker's link, whose end says at once that the worker is gone.
//
// libzmq gives no notice of a lost peer (DESIGN links). So the worker connects to
// Welcome.liveness_port, writes Welcome.liveness_token and a line break, and then nothing; the
// kernel closes it when the process ends. A machine that goes silent without closing is the lease's
// business.
//
// Threads: everything on `host`'s strand; destroy there; no handler runs afterwards.
// Limits: one connection for each token that is expected (who expects them bounds those), and
// beside them kStrangersMax that have shown none: each has 5 s for it, and the oldest makes room
// for a new one. So strangers take no room from those who are known.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "protocol/actor/actor_host.h"
#include "protocol/base/result.h"

namespace tutti::transport {

class LivenessListener {
 public:
  // A worker shows its token as soon as it is connected, so few are strangers at a time.
  static constexpr std::size_t kStrangersMax = 256;

  struct Handlers {
    std::function<void(const std::string& token)> on_opened;
    std::function<void(const std::string& token)>
        on_ended;  // only after on_opened, and not after forget(token)
  };

  // Errors: already_exists (port taken), invalid_argument (not a numeric address).
  static Result<std::unique_ptr<LivenessListener>> open(actor::ActorHost& host,
                                                        const std::string& address,
                                                        std::uint16_t port, Handlers handlers);
  ~LivenessListener();

  std::uint16_t port() const;

  // From now on `token` is known; forget closes its connection.
  void expect(const std::string& token);
  void forget(const std::string& token);

  struct State;
  explicit LivenessListener(std::shared_ptr<State> state);

 private:
  std::shared_ptr<State> state_;
};

// The worker's end. Connects at once; `on_ended` is called once when the connection could not be
// made (not_found) or has ended (unavailable).
class LivenessConnection {
 public:
  LivenessConnection(actor::ActorHost& host, const std::string& address, std::uint16_t port,
                     const std::string& token, std::function<void(Error reason)> on_ended);
  ~LivenessConnection();

  struct State;

 private:
  std::shared_ptr<State> state_;
};

}  // namespace tutti::transport
