// One living process and its three lines to the worker: socket pair, output, death.
//
// The end is told once, after everything that the process said and wrote: the socket is read to its
// end, what is left of its group (and what else its owner knows of) is killed, the output is
// drained, the process is reaped.
//
// Threads: everything on `host`'s strand, which must be the main thread. No handler runs after the
// destructor, which kills a process that still lives.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "protocol/actor/actor_host.h"
#include "protocol/transport/pipe_link.h"
#include "worker/launcher/launcher.h"

namespace tutti::worker {

class RankProcess {
 public:
  struct Handlers {
    std::function<void(std::string frame)> on_frame;
    std::function<void(Error reason)> on_unlinked;  // the socket is over, the process is not
    std::function<void(std::string_view bytes)> on_output;
    // Dead, and its group ended; not reaped yet, so that nobody else has its number: ends what else
    // it left. False: some of that still dies; it is asked again soon, for half a second in all.
    std::function<bool()> on_dead;
    std::function<void(ExitStatus status)> on_exit;
  };

  // `received`: what an earlier owner of the same process had read of its socket.
  RankProcess(actor::ActorHost& host, Launched process, Handlers handlers,
              std::string received = {});
  RankProcess(const RankProcess&) = delete;
  RankProcess& operator=(const RankProcess&) = delete;
  ~RankProcess();

  // Errors: exhausted (it does not read), unavailable (its socket is closed, or it has none).
  Result<> send(std::string frame);

  pid_t pid() const { return process_.pid; }

  // For a successor of this worker in the same process: the descriptors, which stay open and ours,
  // and what was read and not used yet. Nothing while a frame is on its way to the rank.
  struct Handles {
    int pidfd = -1;
    int output = -1;  // -1: at its end
    int socket = -1;  // -1: none, or at its end
    std::string received;
  };
  std::optional<Handles> handles() const;

 private:
  void on_link_closed(Error reason);
  void on_pid_readable();
  void on_output_readable();
  void drain_output();
  bool read_output();
  void close_output();
  void finish();

  actor::ActorHost& host_;
  Launched process_;
  Handlers handlers_;
  std::unique_ptr<transport::AsyncPipeLink> link_;
  int socket_ = -1;  // link_ owns it
  bool dead_ = false;
  bool link_ended_ = false;
  bool reaped_ = false;
  int sweeps_ = 0;
  actor::TimerId timer_ = 0;
};

}  // namespace tutti::worker
