// tutti check: of its cores and memory by the rank binary, in place of this process; of its GPUs by
// processes of the rank binary for GPUs, beside what the driver tells meanwhile; of its disks by
// processes of this binary (check_disk_verb.cc).
#include <fmt/core.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <future>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "ops/cli/client/api.h"
#include "ops/cli/client/fields.h"
#include "ops/cli/disks/disk_check.h"
#include "ops/cli/gpus/gpu_check.h"
#include "ops/cli/gpus/measuring.h"
#include "ops/cli/rank_tools.h"
#include "ops/cli/verbs.h"
#include "protocol/base/file.h"
#include "worker/inventory/gpu_watch.h"

namespace tutti::cli {

namespace {

// As ops/gpu/check ends where there is none: nothing was checked, and nothing is wrong.
constexpr int kNoGpu = 77;
constexpr Duration kBetweenReadings = std::chrono::milliseconds(500);
constexpr Duration kFirstReading = std::chrono::seconds(10);

struct GpuCheckOptions {
  bool gpu = false;
  double deadline = 20;
  double share_min = Judging{}.share_min;
  std::string state;
};

// What the driver tells while the GPUs are measured.
class Readings {
 public:
  Readings() {
    watch_.start([sums = sums_](const worker::GpuInventory& reading) { sums->add(reading); },
                 [] { return worker::take_gpu_inventory(); }, kBetweenReadings);
  }

  // Once the driver has told something, or does not.
  worker::GpuInventory take() {
    if (sums_->seen.get_future().wait_for(kFirstReading) != std::future_status::ready)
      return {.problem = "the driver's library does not answer"};
    const std::lock_guard lock(sums_->mutex);
    return sums_->all;
  }

 private:
  struct Sums {
    void add(const worker::GpuInventory& reading) {
      const std::lock_guard lock(mutex);
      add_reading(all, reading);
      if (!std::exchange(told, true)) seen.set_value();
    }

    std::mutex mutex;
    worker::GpuInventory all;
    bool told = false;
    std::promise<void> seen;
  };

  std::shared_ptr<Sums> sums_ = std::make_shared<Sums>();
  worker::GpuWatch watch_;
};

// For the worker, which tells its coordinator. Nothing where there is one GPU.
std::optional<Finding> keep_links(const GpuCheck& check, const std::string& state) {
  const auto links = links_of(check);
  if (links.empty()) return std::nullopt;
  const std::filesystem::path folder =
      state.empty() ? default_state_folder() / "worker" : std::filesystem::path(state);
  const std::filesystem::path file = folder / worker::kMeasuredLinksFile;
  if (const auto kept = write_file_atomically(file, worker::print_measured_links(links)); !kept) {
    return Finding{Verdict::note, "links", "kept nowhere: " + kept.error().message,
                   "gangs are placed by how many links there are; --state names a worker's folder"};
  }
  return Finding{Verdict::good, "links", "kept in " + file.string(), ""};
}

int check_gpus(const GpuCheckOptions& options, const Session& session) {
  Measuring measuring{.command = {rank_binary({"--device=gpu"}), "devices", "--measure"}};
  measuring.each =
      std::chrono::duration_cast<Duration>(std::chrono::duration<double>(options.deadline));
  if (std::getenv("TUTTI_CHECK_SMALL") != nullptr) measuring.command.emplace_back("--small");
  Readings readings;
  GpuCheck check = measure_gpus(measuring);
  check.readings = readings.take();
  if (check.gpus.empty()) {
    fmt::print(stderr, "tutti check: {}\n", check.problem);
    return check.readings.gpus.empty() ? kNoGpu : int{kInfrastructure};
  }
  auto findings = judge_check(check, {.share_min = options.share_min});
  if (auto kept = keep_links(check, options.state)) findings.push_back(*std::move(kept));
  const Paint paint = session.out_is_terminal ? Paint::coloured : Paint::plain;
  print(session.json() ? json_line(check_json(check, findings))
                       : check_page(check, findings, paint));
  return any_problem(findings) ? kInfrastructure : kDone;
}

Action declare_check_gpu(Arguments& arguments) {
  const auto options = std::make_shared<GpuCheckOptions>();
  arguments.flag("--gpu", options->gpu, "products, memory, copies, links and all GPUs at once");
  arguments.option("--deadline", options->deadline, "seconds for each measure (20)");
  arguments.option("--below", options->share_min,
                   "less than this share of the best of its kind is a problem (0.85)");
  arguments.option("--state", options->state,
                   "folder of the worker that is to tell speeds of links ($TUTTI_STATE/worker)");
  arguments.epilogue(
      "Ends with 3 where a GPU is slowed down, fails, does not answer, or is far below the best of "
      "its\n"
      "kind; with 77 where there is no GPU. Let nothing else run on the GPUs meanwhile. What "
      "pairs\n"
      "reach is kept for the worker: gangs are placed by it.");
  return [options](Session& session) {
    const auto refused = refuse_deadline(options->deadline);
    return refused ? *refused : check_gpus(*options, session);
  };
}

}  // namespace

int pass_check(const std::vector<std::string>& words, Session& session) {
  const auto has_word = [&](std::string_view word) {
    return std::ranges::find(words, word) != words.end();
  };
  if (words.size() > 2 && words[1] == kDiskMeasureWord)
    return run_disk_measure(words[2], std::vector<std::string>(words.begin() + 3, words.end()));
  const std::vector<std::string> behind(words.begin() + 1, words.end());
  Verb verb{};
  verb.name = "check";
  if (has_word("--disk")) {
    verb.summary = "Measure the disks of this machine that a cluster works with.";
    verb.declare = declare_check_disk;
  } else if (has_word("--gpu")) {
    verb.summary = "Measure this machine's GPUs, and say what is wrong with them.";
    verb.declare = declare_check_gpu;
  } else {
    return pass_to_rank(words, session);
  }
  return run_declared(verb, std::vector<std::string>(words.begin() + 1, words.end()), session);
}

}  // namespace tutti::cli
