// What a decision of the coordinator costs with many workers and many queued jobs.
//
//   bench_scheduler [--quick]
//
// The state machine itself, as the coordinator runs it, without network and disk: W workers of 8
// slots say Hello, jobs fill them, Q jobs wait (programs of 1, 8 and 64 ranks of several users,
// priorities, limits and 165 shapes), then programs end one by one, each in a decision that frees a
// slot and starts what is next; jobs are submitted so that the queue stays as long. Of a heartbeat
// its frames are measured, too. Times are of the thread, so that other programs on the machine do
// not count.
#include <fmt/core.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <map>
#include <string>
#include <unordered_map>
#include <variant>
#include <vector>

#include "coordinator/cluster/cluster_state.h"
#include "ops/bench/samples.h"
#include "protocol/base/assert.h"
#include "protocol/base/rng.h"
#include "protocol/wire/link.h"

namespace tutti::bench {
namespace {

using namespace coordinator;

constexpr std::uint32_t kSlots = 8;
constexpr double kMicro = 1e6;
constexpr double kHeartbeatsPerSecond = 2;

class Cluster {
 public:
  explicit Cluster(std::uint32_t workers) : rng_(7), state_(settings()) {
    static_cast<void>(state_.begin(now_, wall(), 0));
    for (std::uint32_t i = 0; i < workers; ++i) {
      wire::Hello hello;
      hello.worker = fmt::format("node-{:05}", i);
      hello.incarnation = "i";
      hello.slots = kSlots;
      hello.cores = 4 * kSlots;
      hello.memory_bytes = std::uint64_t{64} << 30;
      hello.join_token = "join";
      hello.greeting = 1;
      peers_.push_back({.name = hello.worker, .session = {}, .reports = {}});
      index_[hello.worker] = i;
      on(WorkerFrame{.peer = hello.worker, .session = {}, .sequence = {}, .message = hello});
    }
  }

  double submit() {
    spec::JobSpec spec;
    spec.name = "bench";
    spec.kind = spec::JobKind::run;
    const std::uint64_t draw = rng_.below(100);
    const std::uint32_t ranks = draw < 90 ? 1 : draw < 99 ? 8 : 64;
    spec.resources.ranks_min = spec.resources.ranks_max = ranks;
    // More shapes than the scheduler keeps indices of; eight of each fit on a worker.
    spec.resources.cores = static_cast<std::uint32_t>(rng_.below(5));
    spec.resources.memory_bytes = rng_.below(33) << 28;  // at most 8 GiB
    spec.priority = static_cast<std::int32_t>(rng_.below(3));
    if (rng_.chance(0.5)) spec.limit.time_ms = 60'000 * (1 + rng_.below(4));
    const std::string owner = fmt::format("user-{}", rng_.below(8));
    return on(SubmitJob{
        .request = RequestId{++requests_}, .key = {}, .owner = owner, .yaml = "s", .spec = spec});
  }

  // A running program ends: the seconds that the decision took.
  double end_one() {
    if (running_.empty()) return 0;
    const std::size_t at = rng_.below(running_.size());
    const Running ended = running_[at];
    running_[at] = running_.back();
    running_.pop_back();
    wire::RankExited exit;
    exit.job = ended.job;
    exit.process = ended.process;
    exit.generation = ended.generation;
    return report(ended.worker, exit);
  }

  // A heartbeat: decoding its frame, with the progress of all that the worker runs; the decision;
  // encoding the answer. Encryption and the socket are in none of them.
  struct Beat {
    double frames = 0;
    double decision = 0;
  };
  Beat beat() {
    const std::size_t worker = rng_.below(peers_.size());
    const Peer& peer = peers_[worker];
    const std::string frame = frame_of_beat(worker);
    const double begin = now_seconds(Clock::thread);
    auto decoded = wire::decode_frame<wire::FromWorker>(frame, counters_);
    TUTTI_ASSERT(decoded.ok());
    const double taken = now_seconds(Clock::thread);
    const Decision decision = state_.on({.now = now_,
                                         .wall = wall(),
                                         .random = "0",
                                         .input = WorkerFrame{.peer = peer.name,
                                                              .session = decoded->header.session,
                                                              .sequence = {},
                                                              .message = decoded->message}});
    static_cast<void>(state_.next_due());
    const double decided = now_seconds(Clock::thread);
    const std::size_t answered = encode(decision);
    const double end = now_seconds(Clock::thread);
    TUTTI_ASSERT(answered > 0);
    return {.frames = taken - begin + end - decided, .decision = decided - taken};
  }

  // What decisions have to wait for when somebody reads meanwhile.
  double explain_one() {
    const JobId job = queued_[rng_.below(queued_.size())];
    return timed([&] { TUTTI_ASSERT(state_.explain(job).has_value()); });
  }
  double detail_one() {
    const JobId job = queued_[rng_.below(queued_.size())];
    return timed([&] { TUTTI_ASSERT(state_.job(job).has_value()); });
  }
  double page() {
    JobFilter filter;
    filter.states = {JobState::queued};
    filter.limit = 200;
    return timed([&] { TUTTI_ASSERT(!state_.jobs(filter).jobs.empty()); });
  }
  double nodes() {
    return timed([&] { TUTTI_ASSERT(state_.nodes().size() == peers_.size()); });
  }
  void list_queued() {
    queued_.clear();
    for (const JobSummary& job : state_.jobs()) {
      if (job.state == JobState::queued) queued_.push_back(job.job);
    }
  }

  double tick() {
    now_ = now_ + std::chrono::milliseconds(1);
    return on(Tick{});
  }

  std::size_t running() const { return running_.size(); }
  std::size_t queued() const {
    std::size_t count = 0;
    for (const JobSummary& job : state_.jobs()) count += job.state == JobState::queued ? 1 : 0;
    return count;
  }

 private:
  struct Peer {
    std::string name;
    SessionId session;
    Sequence reports;
  };
  struct Running {
    std::size_t worker = 0;
    JobId job;
    ProcessId process;
    Generation generation;
  };

  static ClusterSettings settings() {
    ClusterSettings out;
    out.job_folders = "/state/jobs";
    out.join_token = "join";
    out.ended_jobs_max = 1'000;
    // Nobody falls silent while the benchmark fills the queue.
    out.lease = std::chrono::hours(1);
    out.heartbeat = std::chrono::minutes(20);
    return out;
  }
  WallTime wall() const { return WallTime{1'700'000'000'000 + to_ms(now_.since_start)}; }

  std::string frame_of_beat(std::size_t worker) const {
    wire::Heartbeat beat;
    for (const Running& each : running_) {
      if (each.worker != worker) continue;
      beat.progress.push_back({.job = each.job,
                               .generation = each.generation,
                               .process = each.process,
                               .phase = "exchange",
                               .step = 1'000,
                               .collective = draws_,
                               .compute_us = 50'000,
                               .beat = draws_});
    }
    wire::FrameHeader header;
    header.session = peers_[worker].session;
    auto frame = wire::encode_frame<wire::FromWorker>(beat, header);
    TUTTI_ASSERT(frame.ok());
    return *std::move(frame);
  }

  // Bytes of all that a decision sends to workers.
  static std::size_t encode(const Decision& decision) {
    std::size_t bytes = 0;
    for (const auto* effects : {&decision.immediate, &decision.effects}) {
      for (const Effect& effect : *effects) {
        const auto* sent = std::get_if<SendToWorker>(&effect);
        if (sent == nullptr) continue;
        wire::FrameHeader header;
        header.session = sent->session;
        bytes += wire::encode_frame<wire::ToWorker>(sent->message, header)->size();
      }
    }
    return bytes;
  }

  // Decides, and lets the workers do what they are told; only the decision's own time counts.
  double on(Input input) {
    Envelope envelope{.now = now_,
                      .wall = wall(),
                      .random = fmt::format("{:032x}", ++draws_),
                      .input = std::move(input)};
    const double begin = now_seconds(Clock::thread);
    const Decision decision = state_.on(envelope);
    static_cast<void>(state_.next_due());
    const double took = now_seconds(Clock::thread) - begin;
    perform(decision);
    return took;
  }

  template <class Read>
  static double timed(Read read) {
    const double begin = now_seconds(Clock::thread);
    read();
    return now_seconds(Clock::thread) - begin;
  }

  template <class Message>
  double report(std::size_t worker, Message message) {
    Peer& peer = peers_[worker];
    peer.reports = Sequence{peer.reports.value + 1};
    return on(WorkerFrame{.peer = peer.name,
                          .session = peer.session,
                          .sequence = peer.reports,
                          .message = std::move(message)});
  }

  void perform(const Decision& decision) {
    for (const auto* effects : {&decision.immediate, &decision.effects}) {
      for (const Effect& effect : *effects) {
        if (const auto* frame = std::get_if<SendToWorker>(&effect)) take(*frame);
      }
    }
  }

  void take(const SendToWorker& frame) {
    const std::size_t worker = index_.at(frame.peer);
    if (const auto* welcome = std::get_if<wire::Welcome>(&frame.message)) {
      peers_[worker].session = welcome->session;
    }
    if (!frame.sequence) return;
    if (const auto* start = std::get_if<wire::StartRank>(&frame.message)) {
      wire::RankReady ready;
      ready.job = start->job;
      ready.generation = start->generation;
      ready.process = start->process;
      ready.rank = start->rank;
      ready.address = "a";
      running_.push_back({worker, start->job, start->process, start->generation});
      report(worker, ready);
    }
    if (const auto* group = std::get_if<wire::FormGroup>(&frame.message)) {
      wire::GroupFormed formed;
      formed.job = group->job;
      formed.generation = group->generation;
      formed.process = group->process;
      report(worker, formed);
    }
    on(WorkerFrame{.peer = frame.peer,
                   .session = peers_[worker].session,
                   .sequence = {},
                   .message = wire::OrdersAcked{.through = frame.sequence}});
  }

  Rng rng_;
  Instant now_{std::chrono::hours(1)};
  ClusterState state_;
  wire::FrameCounters counters_;
  std::uint64_t draws_ = 0;
  std::uint64_t requests_ = 0;
  std::vector<Peer> peers_;
  std::unordered_map<std::string, std::size_t> index_;
  std::vector<Running> running_;
  std::vector<JobId> queued_;
};

void print(const std::string& name, Samples samples) {
  samples.finish();
  print_line({.bench = "scheduler", .name = name, .ours = &samples, .peer = {}});
}

void print_share(std::string_view what, std::uint32_t workers, const Samples& beats) {
  double sum = 0;
  for (const double seconds : beats.seconds) sum += seconds;
  const double mean = sum / static_cast<double>(beats.seconds.size());
  fmt::print(
      "{{\"bench\": \"scheduler\", \"case\": \"heartbeats of {} workers, {}\", \"unit\": "
      "\"share of a core\", \"p50\": {:.4f}, \"each_us\": {:.2f}}}\n",
      workers, what, mean * workers * kHeartbeatsPerSecond, mean * kMicro);
}

struct Size {
  std::uint32_t workers = 0;
  std::size_t queued = 0;
  int decisions = 0;
};

// The largest number of workers over the smallest, of the slowest decisions: flat up to 1.5.
void print_flat(std::string_view what, const std::vector<double>& p99) {
  fmt::print(
      "{{\"bench\": \"scheduler\", \"case\": \"{}, p99 of the most workers over that of the "
      "fewest\", \"unit\": \"ratio\", \"p50\": {:.2f}, \"goal\": 1.5}}\n",
      what, p99.back() / p99.front());
}

// The slowest of a hundred.
struct Slowest {
  double end = 0;
  double submit = 0;
};

Slowest run(const Size& size) {
  Cluster cluster(size.workers);
  const std::size_t slots = std::size_t{size.workers} * kSlots;
  Samples filling;
  while (cluster.running() < slots * 95 / 100) {
    filling.seconds.push_back(cluster.submit());
    cluster.tick();
  }
  for (std::size_t i = 0; i < size.queued; ++i) filling.seconds.push_back(cluster.submit());
  const std::string at =
      fmt::format("{} workers, {} queued", size.workers, cluster.queued() / 1'000 * 1'000);
  print("submit, " + at, filling);
  Samples ends;
  Samples submits;
  Samples beats;
  Samples frames;
  for (int i = 0; i < size.decisions; ++i) {
    ends.seconds.push_back(cluster.end_one());
    submits.seconds.push_back(cluster.submit());
    cluster.tick();  // what the submit left to be done is not the heartbeat's
    const Cluster::Beat beat = cluster.beat();
    beats.seconds.push_back(beat.decision);
    frames.seconds.push_back(beat.frames);
  }
  print("a program ends and the next start, " + at, ends);
  print("submit to a long queue, " + at, submits);
  print("heartbeat, decided, " + at, beats);
  print("heartbeat, decoded and answered, " + at, frames);
  cluster.list_queued();
  const auto readings = [&](const char* what, auto read) {
    Samples samples;
    for (int i = 0; i < size.decisions / 100; ++i) samples.seconds.push_back(read());
    print(fmt::format("{}, {}", what, at), samples);
  };
  readings("read: why a job waits", [&] { return cluster.explain_one(); });
  readings("read: a job", [&] { return cluster.detail_one(); });
  readings("read: a page of queued jobs", [&] { return cluster.page(); });
  readings("read: all nodes", [&] { return cluster.nodes(); });
  print_share("decided", size.workers, beats);
  print_share("decoded and answered", size.workers, frames);
  ends.finish();
  submits.finish();
  return {.end = ends.at(0.99), .submit = submits.at(0.99)};
}

}  // namespace
}  // namespace tutti::bench

int main(int count, char** arguments) {
  const bool quick = count > 1 && std::strcmp(arguments[1], "--quick") == 0;
  std::vector<double> ends;
  std::vector<double> submits;
  for (const tutti::bench::Size& size :
       quick
           ? std::vector<tutti::bench::Size>{{100, 2'000, 2'000}, {1'000, 2'000, 2'000}}
           : std::vector<tutti::bench::Size>{{1'000, 100'000, 20'000}, {10'000, 100'000, 20'000}}) {
    const tutti::bench::Slowest slowest = tutti::bench::run(size);
    ends.push_back(slowest.end);
    submits.push_back(slowest.submit);
    std::fflush(stdout);
  }
  tutti::bench::print_flat("a program ends and the next start", ends);
  tutti::bench::print_flat("submit to a long queue", submits);
  return 0;
}
