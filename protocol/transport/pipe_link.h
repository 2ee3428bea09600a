// Frames over a Unix stream socket that a child was born with: worker <-> rank.
//
// PipeLink is the rank's end, for plain threads; AsyncPipeLink the worker's, on an actor's strand.
// Frames are those of frame.h; their headers delimit them. End of file is the other's death and an
// ordinary event. After `corrupt` or `unsupported` the stream cannot be followed any more, so the
// link is over.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "protocol/actor/actor_host.h"
#include "protocol/base/clock.h"
#include "protocol/base/file.h"
#include "protocol/base/result.h"
#include "protocol/wire/frame.h"

namespace tutti::transport {

// A connected pair, close-on-exec, ready for fork: the first stays, the second is handed to the
// child.
Result<std::pair<FileDescriptor, FileDescriptor>> make_pipe_pair();

// Threads: any number send (whole frames, never interleaved), one receives; shut_down from any
// thread.
class PipeLink {
 public:
  explicit PipeLink(FileDescriptor socket);

  // The whole frame is in the kernel when it returns. Errors: deadline_exceeded (the link is then
  // over, since a part may have been written), unavailable when the other end is closed.
  Result<> send(std::string_view frame, Duration deadline);

  // Waits for the next frame. Errors: unavailable at end of file or after shut_down; corrupt,
  // unsupported, exhausted from its header; deadline_exceeded (only between frames; the link goes
  // on).
  Result<std::string> receive();
  Result<std::string> receive_within(Duration deadline);

  // Wakes receive and fails what follows, on both ends.
  void shut_down();

 private:
  Result<> read_exactly(char* to, std::size_t bytes);

  FileDescriptor socket_;
  std::mutex sending_;
};

// Threads: everything on `host`'s strand. Destroy it there; no handler runs afterwards.
class AsyncPipeLink {
 public:
  struct Handlers {
    std::function<void(std::string frame)> on_frame;
    std::function<void(Error reason)>
        on_closed;  // once: unavailable at end of file, else what was wrong with the stream
  };
  static constexpr std::size_t kQueuedBytesMax = 4 * wire::kFrameBytesMax;

  // `received`: what an earlier link on this socket had read of a frame that was not whole.
  AsyncPipeLink(actor::ActorHost& host, FileDescriptor socket, Handlers handlers,
                std::string received = {});
  AsyncPipeLink(const AsyncPipeLink&) = delete;
  AsyncPipeLink& operator=(const AsyncPipeLink&) = delete;
  ~AsyncPipeLink();

  // Queues the frame. Errors: exhausted when more than kQueuedBytesMax would wait (the rank does
  // not read), unavailable when the link is over.
  Result<> send(std::string frame);

  // For a successor on the same socket, in the same process image or the next: what was read and is
  // no whole frame yet. Nothing while a frame is being written, of which a part may have left.
  std::optional<std::string> unfinished() const;

 private:
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace tutti::transport
