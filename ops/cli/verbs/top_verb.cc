// tutti top: the cluster as it goes, drawn again and again on a terminal.
#include <fmt/core.h>

#include <memory>
#include <optional>
#include <thread>

#include "ops/cli/client/connection.h"
#include "ops/cli/client/fields.h"
#include "ops/cli/client/job_list.h"
#include "ops/cli/text/top_text.h"
#include "ops/cli/verbs.h"
#include "protocol/spec/quantity.h"

namespace tutti::cli {

namespace {

struct TopOptions {
  std::string every = "2s";
  std::uint64_t count = 0;
};

Result<TopInput> look(Connection& connection) {
  Result<boost::json::value> jobs = list_jobs(connection.api(), "state=unfinished");
  if (!jobs) return jobs.error();
  Result<boost::json::value> nodes = connection.api().get("/api/v1/nodes");
  if (!nodes) return nodes.error();
  const Result<std::string> metrics = connection.api().get_text("/metrics");
  if (!metrics) return metrics.error();
  return TopInput{*std::move(jobs), *std::move(nodes), parse_metrics(*metrics), monotonic_now()};
}

int top(const TopOptions& options, const Session& session) {
  const auto every = spec::parse_duration_ms(options.every);
  if (!every || *every < 100) return fail(kUsage, "--every must be a duration of 100ms or more");
  const bool redraws = session.out_is_terminal && !session.json();
  const std::uint64_t frames = options.count > 0 ? options.count : redraws ? UINT64_MAX : 1;
  Connection connection;
  std::optional<TopInput> before;
  for (std::uint64_t frame = 1;; ++frame) {
    Result<TopInput> now = look(connection);
    if (!now) return fail(now.error());
    const boost::json::value shown = top_frame(*now, before ? &*before : nullptr);
    const Paint paint = session.out_is_terminal ? Paint::coloured : Paint::plain;
    print(session.json() ? json_line(shown)
                         : (redraws ? "\x1b[H\x1b[2J" : "") + top_page(shown, wall_now(), paint));
    if (frame >= frames) return kDone;
    before = *std::move(now);
    std::this_thread::sleep_for(std::chrono::milliseconds(*every));
  }
}

}  // namespace

Action declare_top(Arguments& arguments) {
  auto options = std::make_shared<TopOptions>();
  arguments.option("--every", options->every, "time between two frames (default: 2s)");
  arguments.option("--count", options->count,
                   "frames to show (default: on a terminal until Ctrl-C, else 1)");
  return [options](Session& session) { return top(*options, session); };
}

}  // namespace tutti::cli
