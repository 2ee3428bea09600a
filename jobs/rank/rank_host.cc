#include "jobs/rank/rank_host.h"

#include <fmt/core.h>
#include <unistd.h>

#include <mutex>
#include <new>
#include <thread>

#include "jobs/rank/rank_state.h"
#include "jobs/rank/task_queue.h"
#include "jobs/rank/work.h"
#include "kernels/ops/cpu_path.h"
#include "kernels/tensor/buffer.h"
#include "kernels/tensor/device_failure.h"
#include "protocol/base/log.h"
#include "protocol/transport/pipe_link.h"
#include "protocol/wire/link.h"

namespace tutti::rank {
namespace {

constexpr Duration kProgressInterval = std::chrono::milliseconds(100);
// A worker that does not read for this long is as good as gone.
constexpr Duration kSendDeadline = std::chrono::seconds(30);

}  // namespace

struct RankHost::Impl {
  explicit Impl(FileDescriptor socket) : link(std::move(socket)) {}

  // Events and orders meet here, one at a time.
  void tell(const Event& event) {
    const std::lock_guard lock(mutex);
    perform_all(state.on(event));
  }

  void perform_all(const std::vector<Effect>& effects) {
    for (const Effect& effect : effects)
      std::visit([this](const auto& value) { perform(value); }, effect);
  }

  void perform(const SendReport& effect) { send(effect.report); }

  void perform(const BeginSetUp& effect) {
    for (const WorkKind& kind : work_kinds()) {
      if (kind.kind == effect.order.kind) work = kind.make();
    }
    compute.push([this, order = effect.order] { set_up(order); });
  }

  void perform(const BeginListening& effect) {
    compute.push([this, effect] { listen(effect); });
  }

  void perform(const BeginGroup& effect) {
    compute.push(
        [this, effect] { work->run_group(effect, [this](const Event& event) { tell(event); }); });
  }

  void perform(const BeginCommit& effect) {
    disk.push([this, order = effect.order] { commit(order); });
  }

  void perform(const Interrupt& effect) {
    TUTTI_LOG_INFO("rank", "leaves its group: {}", effect.reason);
    work->interrupt(effect.reason);
  }
  void perform(const RaiseFlags& effect) { work->raise_flags(effect); }
  void perform(const WindDown&) {
    if (!work->wind_down()) ::_exit(0);
  }
  void perform(const ExitProcess& effect) { ::_exit(effect.code); }

  void send(const wire::FromRank& report) {
    const auto frame = wire::encode_frame<wire::FromRank>(report);
    if (!frame) {
      TUTTI_LOG_ERROR("rank", "cannot report: {}", frame.error().message);
      return;
    }
    if (!link.send(*frame, kSendDeadline)) ::_exit(0);  // the worker is gone
  }

  void set_up(const wire::StartRank& order) {
    TUTTI_LOG_INFO("rank", "job {} ({}), rank {} of {}, generation {}, {} threads, kernels for {}",
                   to_string(order.job), order.name, order.rank, order.size,
                   to_string(order.generation), order.threads,
                   kernels::to_string(kernels::cpu_path()));
    const auto done =
        work ? work->set_up(order)
             : Error{ErrorCode::unsupported,
                     fmt::format("jobs of kind {} are not run by this build", order.kind)};
    if (done) return tell(SetUpDone{});
    fail(done.error());
  }

  void listen(const BeginListening& order) {
    const auto address = work->listen(order);
    if (!address) return fail(address.error());
    tell(Listening{order.generation, *address, work->held()});
  }

  void commit(const wire::CommitCheckpoint& order) {
    const auto folder = work->commit(order);
    CommitDone done{order.generation, order.step, folder ? *folder : "",
                    folder ? "" : folder.error().message};
    tell(done);
  }

  void fail(const Error& error) {
    TUTTI_LOG_ERROR("rank", "{}", error.message);
    tell(Finished{0, failure_of(error.code), error.message});
  }

  // Exceptions of libraries end here; memory that the job needs and the machine does not have is
  // the user's to change.
  void compute_until_exit() {
    try {
      compute.run();
    } catch (const kernels::AllocationFailure& failure) {
      const bool full = failure.error().code == ErrorCode::exhausted;
      fail({full ? ErrorCode::invalid_argument : failure.error().code,
            full ? "out of memory: " + failure.error().message : failure.error().message});
    } catch (const kernels::DeviceFailure& failure) {
      fail(failure.error());
    } catch (const std::bad_alloc&) {
      fail({ErrorCode::invalid_argument,
            "out of memory: the job needs more than this machine gives"});
    } catch (const std::exception& problem) {
      fail({ErrorCode::internal, problem.what()});
    }
    compute.run();
  }

  void read_orders() {
    wire::FrameCounters counters;
    for (;;) {
      auto frame = link.receive_within(kProgressInterval);
      if (frame) {
        const auto order = wire::decode_frame<wire::ToRank>(*frame, counters);
        if (order) {
          const std::lock_guard lock(mutex);
          perform_all(state.on(order->message));
        } else {
          TUTTI_LOG_WARNING("rank", "an order is not understood: {}", order.error().message);
        }
      } else if (frame.error().code != ErrorCode::deadline_exceeded) {
        ::_exit(0);  // the worker is gone, and so are its ranks
      }
      report_progress();
    }
  }

  void report_progress() {
    const std::lock_guard lock(mutex);
    const Instant now = monotonic_now();
    if (!work || now - progress_sent_at < kProgressInterval) return;
    const training::Progress& progress = work->progress();
    wire::RankProgress report{.job = state.job(),
                              .generation = state.generation(),
                              .process = state.process(),
                              .phase = std::string(to_string(progress.phase.load())),
                              .step = progress.step.load(),
                              .collective = work->collective(),
                              .compute_us = progress.compute_us.load(),
                              .beat = static_cast<std::uint64_t>(to_seconds(now.since_start))};
    if (report == progress_sent) return;
    send(report);
    progress_sent = std::move(report);
    progress_sent_at = now;
  }

  transport::PipeLink link;
  std::mutex mutex;  // state, work's making, progress_sent
  RankState state;
  std::unique_ptr<Work> work;
  wire::RankProgress progress_sent;
  Instant progress_sent_at;
  TaskQueue compute;
  TaskQueue disk;
};

RankHost::RankHost(FileDescriptor socket) : impl_(std::make_unique<Impl>(std::move(socket))) {}
RankHost::~RankHost() = default;

void RankHost::run() {
  std::thread([this] { impl_->read_orders(); }).detach();
  std::thread([this] { impl_->disk.run(); }).detach();
  impl_->compute_until_exit();
  ::_exit(0);
}

}  // namespace tutti::rank
