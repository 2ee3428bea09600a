#include <boost/asio/bind_executor.hpp>
#include <boost/asio/buffer.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/write.hpp>

#include <deque>

#include "protocol/actor/strand.h"
#include "protocol/transport/pipe_link.h"

namespace tutti::transport {

namespace asio = boost::asio;

struct AsyncPipeLink::State : std::enable_shared_from_this<AsyncPipeLink::State> {
  static constexpr std::size_t kReadBytes = std::size_t{64} << 10;

  State(actor::ActorHost& host, Handlers with)
      : strand(actor::strand_of(host)), socket(strand), handlers(std::move(with)) {}

  void read_more() {
    const std::size_t filled = received.size();
    whole = filled;
    received.resize(filled + kReadBytes);
    socket.async_read_some(
        asio::buffer(received.data() + filled, kReadBytes),
        [self = shared_from_this(), filled](const boost::system::error_code& error,
                                            std::size_t count) {
          if (!self->open) return;
          self->received.resize(filled + count);
          if (error)
            return self->end({ErrorCode::unavailable, "the other end of the pipe is closed"});
          if (self->deliver() && self->open) self->read_more();
        });
  }

  // Hands over all whole frames; false once the stream cannot be followed.
  bool deliver() {
    std::size_t from = 0;
    while (open && received.size() - from >= wire::kFrameHeaderBytes) {
      const std::string_view rest = std::string_view(received).substr(from);
      const Result<wire::FrameHeader> header = wire::decode_header(rest);
      if (!header) {
        end(header.error());
        return false;
      }
      const std::size_t bytes = wire::kFrameHeaderBytes + header->length;
      if (rest.size() < bytes) break;
      std::string frame(rest.substr(0, bytes));
      from += bytes;
      handlers.on_frame(std::move(frame));
    }
    received.erase(0, from);
    return true;
  }

  void write_next() {
    writing = true;
    asio::async_write(
        socket, asio::buffer(queue.front()),
        [self = shared_from_this()](const boost::system::error_code& error, std::size_t) {
          self->writing = false;
          if (!self->open) return;
          // The reader sees the end of file, too, after what the other end still had to say.
          if (error) return self->queue.clear();
          self->queued_bytes -= self->queue.front().size();
          self->queue.pop_front();
          if (!self->queue.empty()) self->write_next();
        });
  }

  void end(Error reason) {
    if (!open) return;
    open = false;
    boost::system::error_code ignored;
    socket.close(ignored);
    handlers.on_closed(std::move(reason));
  }

  actor::Strand strand;
  asio::local::stream_protocol::socket socket;
  Handlers handlers;
  bool open = true;
  bool writing = false;
  std::string received;   // with room for the read that waits
  std::size_t whole = 0;  // of it, what was read
  std::deque<std::string> queue;
  std::size_t queued_bytes = 0;
};

AsyncPipeLink::AsyncPipeLink(actor::ActorHost& host, FileDescriptor socket, Handlers handlers,
                             std::string received)
    : state_(std::make_shared<State>(host, std::move(handlers))) {
  state_->received = std::move(received);
  boost::system::error_code error;
  state_->socket.assign(asio::local::stream_protocol(), socket.get(), error);
  if (!error) socket.release();
  state_->read_more();  // after a failed assign this ends the link, by its handler
}

AsyncPipeLink::~AsyncPipeLink() {
  state_->open = false;
  boost::system::error_code ignored;
  state_->socket.close(ignored);
}

std::optional<std::string> AsyncPipeLink::unfinished() const {
  if (!state_->open || state_->writing || !state_->queue.empty()) return std::nullopt;
  return state_->received.substr(0, state_->whole);
}

Result<> AsyncPipeLink::send(std::string frame) {
  if (!state_->open) return Error{ErrorCode::unavailable, "the pipe is closed"};
  if (state_->queued_bytes + frame.size() > kQueuedBytesMax) {
    return Error{ErrorCode::exhausted, "the other end of the pipe does not read"};
  }
  state_->queued_bytes += frame.size();
  state_->queue.push_back(std::move(frame));
  if (!state_->writing) state_->write_next();
  return {};
}

}  // namespace tutti::transport
