// One living process and its three lines to the worker: socket pair, output, death.
//
// The end is told once, after everything that the process said and wrote: the socket is read to its
// end, what is left of its group (and, for a program, whatever else bears its marks) is killed, the
// output is drained, the process is reaped.
//
// Threads: everything on `host`'s strand, which must be the main thread. No handler runs after the
// destructor, which kills a process that still lives.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

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
    std::function<void(ExitStatus status)> on_exit;
  };

  // `marks`: of what is ended with the process; empty: its group only.
  RankProcess(actor::ActorHost& host, Launched process, std::vector<std::string> marks,
              Handlers handlers);
  RankProcess(const RankProcess&) = delete;
  RankProcess& operator=(const RankProcess&) = delete;
  ~RankProcess();

  // Errors: exhausted (it does not read), unavailable (its socket is closed, or it has none).
  Result<> send(std::string frame);

  pid_t pid() const { return process_.pid; }

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
  std::vector<std::string> marks_;
  Handlers handlers_;
  std::unique_ptr<transport::AsyncPipeLink> link_;
  bool dead_ = false;
  bool link_ended_ = false;
  bool reaped_ = false;
  actor::TimerId timer_ = 0;
  std::string buffer_;
};

}  // namespace tutti::worker
