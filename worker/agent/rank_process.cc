#include "worker/agent/rank_process.h"

#include <signal.h>
#include <unistd.h>

#include <array>
#include <cerrno>

#include "protocol/base/log.h"

namespace tutti::worker {

using namespace std::chrono_literals;

namespace {

constexpr std::size_t kReadBytes = std::size_t{64} << 10;
// After its death the socket is at its end already; a descendant that holds a copy is not waited
// for longer.
constexpr Duration kLastWords = 200ms;
// The death of a process is seen a little after the end of its socket, as a rule.
constexpr Duration kUnlinkedAfter = 200ms;
// The last output of a dead process is at most what its pipe held; a descendant may go on writing.
constexpr int kDrainReadsMax = 64;
// What a process left dies within a few milliseconds of its SIGKILL, unless it waits for a disk.
constexpr Duration kSweepAgain = 2ms;
constexpr int kSweepsMax = 250;

}  // namespace

RankProcess::RankProcess(actor::ActorHost& host, Launched process, Handlers handlers,
                         std::string received)
    : host_(host), process_(std::move(process)), handlers_(std::move(handlers)) {
  if (process_.socket) {
    socket_ = process_.socket.get();
    link_ = std::make_unique<transport::AsyncPipeLink>(
        host_, std::move(process_.socket),
        transport::AsyncPipeLink::Handlers{
            .on_frame = [this](std::string frame) { handlers_.on_frame(std::move(frame)); },
            .on_closed = [this](Error reason) { on_link_closed(std::move(reason)); }},
        std::move(received));
  }
  const auto watched = host_.watch_readable(process_.pidfd.get(), [this] { on_pid_readable(); });
  const bool output =
      !process_.output ||
      host_.watch_readable(process_.output.get(), [this] { on_output_readable(); }).ok();
  if (!watched || !output) {
    TUTTI_LOG_ERROR("worker", "process {} cannot be watched", process_.pid);
    signal_group(process_.pid, SIGKILL);
  }
}

RankProcess::~RankProcess() {
  host_.cancel(timer_);
  host_.unwatch(process_.pidfd.get());
  close_output();
  if (!reaped_) signal_group(process_.pid, SIGKILL);
}

Result<> RankProcess::send(std::string frame) {
  if (!link_) return Error{ErrorCode::unavailable, "the process has no socket"};
  return link_->send(std::move(frame));
}

std::optional<RankProcess::Handles> RankProcess::handles() const {
  Handles out{
      .pidfd = process_.pidfd.get(), .output = process_.output.get(), .socket = -1, .received = {}};
  if (!link_ || link_ended_) return out;
  auto unfinished = link_->unfinished();
  if (!unfinished) return std::nullopt;
  out.socket = socket_;
  out.received = *std::move(unfinished);
  return out;
}

void RankProcess::on_link_closed(Error reason) {
  host_.cancel(timer_);
  link_ended_ = true;
  if (dead_) {
    timer_ = host_.arm(Duration{0}, [this] { finish(); });
    return;
  }
  timer_ = host_.arm(kUnlinkedAfter, [this, error = std::move(reason)] {
    if (!dead_) handlers_.on_unlinked(error);
  });
}

void RankProcess::on_pid_readable() {
  host_.unwatch(process_.pidfd.get());
  dead_ = true;
  host_.cancel(timer_);
  timer_ = host_.arm(link_ && !link_ended_ ? kLastWords : Duration{0}, [this] { finish(); });
}

bool RankProcess::read_output() {
  static std::array<char, kReadBytes> buffer;  // one thread reads
  const ssize_t count = ::read(process_.output.get(), buffer.data(), buffer.size());
  if (count > 0) {
    handlers_.on_output(std::string_view(buffer.data(), static_cast<std::size_t>(count)));
    return true;
  }
  if (count < 0 && (errno == EAGAIN || errno == EINTR)) return false;
  close_output();
  return false;
}

void RankProcess::on_output_readable() { read_output(); }

void RankProcess::close_output() {
  if (!process_.output) return;
  host_.unwatch(process_.output.get());
  process_.output.reset();
}

void RankProcess::drain_output() {
  for (int i = 0; i < kDrainReadsMax && process_.output; ++i) {
    if (!read_output()) return;
  }
}

void RankProcess::finish() {
  // Before it is reaped: until then its number, and that of its group, belong to nobody else.
  signal_group(process_.pid, SIGKILL);
  if (!handlers_.on_dead() && ++sweeps_ < kSweepsMax) {
    host_.cancel(timer_);
    timer_ = host_.arm(kSweepAgain, [this] { finish(); });
    return;
  }
  drain_output();
  close_output();
  const auto status = reap(process_);
  reaped_ = true;
  handlers_.on_exit(status.value_or(ExitStatus{.code = 0, .signal = SIGKILL}));
}

}  // namespace tutti::worker
