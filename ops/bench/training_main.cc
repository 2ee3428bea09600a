// Our side of ops/bench/training.
//
//   bench_training parts SECONDS     JSON lines: weight hash, tree exchange, checkpoints
//   bench_training links SECONDS     JSON lines: exchanges between ranks of one machine
//   bench_training counters SECONDS  JSON lines: a step, and what the counters of its ops cost
//   bench_training steps FAMILY LAYERS WIDTH VOCABULARY BATCH SEQUENCE RANKS THREADS PRECISION
//                        RECOMPUTE   says its numerics profile and the bytes of its activations,
//                                    makes a step for every line on standard input, answers
//                                    seconds; fp32, or bf16 as is fastest
#include <fmt/core.h>

#include <algorithm>
#include <bit>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "jobs/checkpoint/checkpoint_reader.h"
#include "jobs/checkpoint/checkpoint_writer.h"
#include "jobs/data/npy.h"
#include "jobs/training/trainer.h"
#include "kernels/collective/communicator.h"
#include "kernels/ops/adamw.h"
#include "kernels/tensor/op_counters.h"
#include "ops/bench/samples.h"
#include "ops/bench/training_links.h"
#include "protocol/base/rng.h"
#include "protocol/base/secret.h"

namespace {

using namespace tutti;
using bench::Samples;

// The demo's model and batch.
struct Shape {
  std::string family = "llama";
  std::uint32_t layers = 4;
  std::uint32_t width = 192;
  std::uint32_t vocabulary = 2048;
  std::uint32_t batch = 16;
  std::uint32_t sequence = 128;
  std::string recompute = "none";
};

// Ends the program: a benchmark that cannot run has nothing to say.
template <class T>
T must(Result<T> result) {
  if (result) return *std::move(result);
  fmt::print(stderr, "bench_training: {}\n", result.error().message);
  std::exit(2);
}
void must(const Result<>& result) {
  if (result) return;
  fmt::print(stderr, "bench_training: {}\n", result.error().message);
  std::exit(2);
}

class Folder {
 public:
  Folder() : path_(std::filesystem::temp_directory_path() / ("tutti-bench-" + random_hex(8))) {
    std::filesystem::create_directories(path_);
  }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  ~Folder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  std::string file(const std::string& name) const { return (path_ / name).string(); }

 private:
  std::filesystem::path path_;
};

std::unique_ptr<training::TrainingJob> open_job(const Folder& folder, const Shape& shape) {
  Rng rng(1);
  std::vector<std::uint32_t> tokens(300'000);
  for (auto& token : tokens) token = static_cast<std::uint32_t>(rng.below(shape.vocabulary));
  must(data::write_token_file(folder.file("tokens.npy"), tokens));
  const bool gated = shape.family != "gpt2";
  const std::uint32_t heads = shape.width / (gated ? 32 : 64);
  spec::JobSpec spec;
  spec.model = {.path = "",
                .family = shape.family,
                .layers = shape.layers,
                .width = shape.width,
                .heads = heads,
                .kv_heads = heads,
                .feed_forward = gated ? (shape.width * 8 / 3 + 63) / 64 * 64 : 4 * shape.width,
                .vocabulary = shape.vocabulary};
  spec.data.tokens = {folder.file("tokens.npy")};
  spec.data.sequence = shape.sequence;
  spec.train.steps = 1'000'000;
  spec.train.batch = shape.batch;
  spec.train.recompute = shape.recompute;
  spec.parallel.shards = std::min(8U, std::bit_floor(shape.batch));
  return must(training::open_training_job({spec, "", folder.file("job")}));
}

using Groups = std::vector<std::unique_ptr<kernels::Communicator>>;

Groups form_groups(std::uint32_t ranks) {
  std::vector<std::unique_ptr<kernels::Listener>> listeners;
  kernels::FormOptions form;
  for (std::uint32_t rank = 0; rank < ranks; ++rank) {
    listeners.push_back(must(kernels::Listener::open({})));
    form.addresses.push_back(listeners.back()->address());
  }
  Groups groups(ranks);
  std::vector<std::thread> threads;
  for (std::uint32_t rank = 0; rank < ranks; ++rank) {
    threads.emplace_back([&, rank] {
      kernels::FormOptions own = form;
      own.rank = rank;
      groups[rank] = must(listeners[rank]->connect(own));
    });
  }
  for (auto& thread : threads) thread.join();
  return groups;
}

// One rank's function for all ranks at once, each on a thread of its own.
void on_all(std::uint32_t ranks, const std::function<void(std::uint32_t)>& rank_function) {
  std::vector<std::thread> threads;
  for (std::uint32_t rank = 1; rank < ranks; ++rank) threads.emplace_back(rank_function, rank);
  rank_function(0);
  for (auto& thread : threads) thread.join();
}

struct Run {
  std::uint32_t ranks = 1;
  int threads = 1;
  std::optional<kernels::Bf16Arithmetic> rounding = {};
};

// Ranks of one group, as threads.
class Steps {
 public:
  Steps(const training::TrainingJob& job, const Run& run)
      : ranks_(run.ranks),
        groups_(form_groups(run.ranks)),
        progress_(run.ranks),
        trainers_(run.ranks) {
    on_all(ranks_, [&](std::uint32_t rank) {
      trainers_[rank] = std::make_unique<training::Trainer>(job, run.threads, progress_[rank],
                                                            nullptr, run.rounding);
      (void)must(trainers_[rank]->enter(*groups_[rank], {.generation = 1}));
    });
  }
  void make_one() {
    on_all(ranks_,
           [&](std::uint32_t rank) { (void)must(trainers_[rank]->step(*groups_[rank], 0)); });
  }

 private:
  const std::uint32_t ranks_;
  const Groups groups_;
  std::vector<training::Progress> progress_;
  std::vector<std::unique_ptr<training::Trainer>> trainers_;
};

// Two ranks add and gather gradients that are there already.
Samples measure_exchange(const training::TrainingJob& job, double seconds) {
  constexpr std::uint32_t kRanks = 2;
  const Groups groups = form_groups(kRanks);
  const auto& layout = job.decoder.layout();
  const auto tree = must(kernels::ShardTree::create(8, 16, kRanks));
  std::vector<std::uint64_t> starts;
  for (const auto& block : layout.blocks()) starts.push_back(block.offset);
  std::vector<std::unique_ptr<kernels::TreeExchange>> exchanges;
  std::vector<std::vector<float>> gradients;
  std::vector<std::unique_ptr<kernels::ThreadPool>> pools;
  for (std::uint32_t rank = 0; rank < kRanks; ++rank) {
    pools.push_back(std::make_unique<kernels::ThreadPool>(1));
    exchanges.push_back(std::make_unique<kernels::TreeExchange>(
        tree, rank,
        std::vector<kernels::Shares>{
            kernels::shares_between(kernels::chunk_borders(starts, layout.elements(), kRanks))}));
    gradients.emplace_back(layout.elements(), 0.5F);
  }
  const std::vector<std::function<void()>> exchange = {[&] {
    on_all(kRanks, [&](std::uint32_t rank) {
      std::span<float> own(gradients[rank]);
      const std::vector<std::span<std::byte>> notes(kRanks);
      const kernels::OpContext ctx{pools[rank].get()};
      const kernels::TreeExchange::Work work{ctx, *groups[rank], 0, std::span(&own, 1), own};
      must(exchanges[rank]->reduce(work));
      must(exchanges[rank]->gather(work, notes));
    });
  }};
  return bench::measure(exchange, seconds).front();
}

// The optimizer pass with and without the hash of the blocks that it has in cache.
std::int64_t calls_of_ops() {
  std::int64_t calls = 0;
  for (const kernels::OpCount& count : kernels::op_counts()) calls += count.calls;
  return calls;
}

// What the counters of so many calls cost, on their own thread.
Samples measure_counters(std::int64_t calls, double seconds) {
  const std::vector<std::function<void()>> counted = {[calls] {
    for (std::int64_t i = 0; i < calls; ++i) {
      const kernels::OpTimer timer(kernels::Op::add_into, {.flop = i, .bytes = i});
    }
  }};
  return bench::measure(counted, seconds).front();
}

std::vector<Samples> measure_update(const training::TrainingJob& job, double seconds) {
  const auto count = static_cast<std::size_t>(job.decoder.layout().parameter_count());
  kernels::ThreadPool pool(1);
  const kernels::OpContext ctx{&pool};
  std::vector<float> weight(count, 0.1F);
  std::vector<float> gradient(count, 0.2F);
  std::vector<float> first(count, 0.0F);
  std::vector<float> second(count, 0.0F);
  std::vector<kernels::Hash128> hashes(
      static_cast<std::size_t>(kernels::grid_blocks(static_cast<kernels::Index>(count))));
  const auto update = [&](std::span<kernels::Hash128> wanted) {
    kernels::AdamWRange args;
    args.weight = weight;
    args.gradient = gradient;
    args.first = first;
    args.second = second;
    args.hashes = wanted;
    must(kernels::adamw_update(ctx, args));
  };
  const std::vector<std::function<void()>> both = {[&] { update(hashes); }, [&] { update({}); }};
  return bench::measure(both, seconds);
}

void measure_checkpoints(const training::TrainingJob& job, const Folder& folder, double seconds) {
  const auto& layout = job.decoder.layout();
  std::vector<std::vector<float>> arenas(3, std::vector<float>(layout.elements(), 0.25F));
  checkpoint::CheckpointState state{
      .decoder = job.decoder,
      .weights = arenas[0],
      .optimizer = {{"exp_avg", arenas[1]}, {"exp_avg_sq", arenas[2]}},
      .entry = {.step = 1, .optimizer = "adamw"},
      .tokenizer = {}};
  const std::string root = folder.file("checkpoints");
  std::uint64_t step = 0;
  std::uint64_t bytes = 0;
  std::filesystem::path saved;
  const std::span<float> targets[] = {arenas[1], arenas[2]};
  const std::vector<std::function<void()>> both = {
      [&] {
        state.entry.step = ++step;
        auto files = must(checkpoint::write_part(state, {.root = root, .generation = 1}));
        bytes = 0;
        for (const auto& file : files) bytes += file.bytes;
        saved = must(checkpoint::commit(
            {.root = root, .step = step, .generation = 1, .files = files, .keep = 1}));
      },
      [&] {
        (void)must(checkpoint::load(saved, {.decoder = job.decoder,
                                            .weights = arenas[0],
                                            .optimizer = "adamw",
                                            .states = {"exp_avg", "exp_avg_sq"},
                                            .state_values = targets}));
      }};
  const auto samples = bench::measure(both, seconds);
  const double megabytes = static_cast<double>(bytes) / 1e6;
  const char* const names[] = {"save, synced and hashed", "load, verified"};
  for (std::size_t i = 0; i < samples.size(); ++i) {
    const std::string name = fmt::format("checkpoint of {:.1f} MB: {}, {:.0f} MB/s", megabytes,
                                         names[i], megabytes / samples[i].at(0.5));
    bench::print_line(
        {.bench = "training", .name = name, .ours = &samples[i], .peer = "", .theirs = nullptr});
  }
}

void print(const std::string& name, const Samples& samples, double share) {
  bench::print_line({.bench = "training",
                     .name = name,
                     .ours = &samples,
                     .peer = "",
                     .theirs = nullptr,
                     .share = share});
}

// A step, and the counters of as many calls.
Samples measure_step(const training::TrainingJob& job, double seconds) {
  Steps steps(job, {});
  const std::vector<std::function<void()>> step = {[&] { steps.make_one(); }};
  const Samples whole = bench::measure(step, seconds).front();
  print("step of the demo's model, 1 rank of 1 thread", whole, 0);
  const std::int64_t before = calls_of_ops();
  steps.make_one();
  const std::int64_t calls = calls_of_ops() - before;
  const Samples counters = measure_counters(calls, seconds / 4);
  print("counters of its calls of ops, share of that step", counters,
        counters.at(0.5) / whole.at(0.5));
  return whole;
}

void run_counters(double seconds) {
  const Folder folder;
  (void)measure_step(*open_job(folder, {}), seconds);
}

void run_parts(double seconds) {
  const Folder folder;
  const auto job = open_job(folder, {});
  const Samples whole = measure_step(*job, seconds);
  const Samples exchange = measure_exchange(*job, seconds / 2);
  print("tree exchange of 2 ranks, share of that step", exchange, exchange.at(0.5) / whole.at(0.5));
  const std::vector<Samples> update = measure_update(*job, seconds / 2);
  print("optimizer pass with weight hash, share of that step", update[0],
        update[0].at(0.5) / whole.at(0.5));
  print("optimizer pass without weight hash, share of that step", update[1],
        update[1].at(0.5) / whole.at(0.5));
  measure_checkpoints(*job, folder, seconds / 2);
}

void run_steps(const Shape& shape, const Run& run) {
  const Folder folder;
  const auto job = open_job(folder, shape);
  Steps steps(*job, run);
  const std::uint32_t micro = job->micro(nullptr);
  fmt::print("{} {}\n", training::profile_on_cpu(run.rounding),
             models::TrainingPass::workspace_bytes(
                 job->decoder.description(),
                 {.rows_max = micro * shape.sequence, .samples_max = micro}, job->recompute()));
  std::fflush(stdout);
  while (std::getchar() == '\n') {
    const double begin = bench::now_seconds();
    steps.make_one();
    fmt::print("{}\n", bench::now_seconds() - begin);
    std::fflush(stdout);
  }
}

std::uint32_t number(const char* text) { return static_cast<std::uint32_t>(std::atoi(text)); }

}  // namespace

int main(int count, char** values) {
  const std::string mode = count > 1 ? values[1] : "";
  if (mode == "parts" && count == 3) {
    run_parts(std::atof(values[2]));
    return 0;
  }
  if (mode == "counters" && count == 3) {
    run_counters(std::atof(values[2]));
    return 0;
  }
  if (mode == "links" && count == 3) {
    bench::measure_links(std::atof(values[2]));
    return 0;
  }
  if (mode == "steps" && count == 12) {
    std::optional<kernels::Bf16Arithmetic> rounding;
    if (values[10] == std::string("bf16")) rounding = kernels::fastest_bf16();
    run_steps({values[2], number(values[3]), number(values[4]), number(values[5]),
               number(values[6]), number(values[7]), values[11]},
              {number(values[8]), std::atoi(values[9]), rounding});
    return 0;
  }
  fmt::print(stderr, "bench_training: see ops/bench/training\n");
  return 2;
}
