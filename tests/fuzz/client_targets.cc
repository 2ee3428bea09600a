// What a server says to a client: server-sent events and metrics.
#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>

#include "ops/cli/client/event_stream.h"
#include "ops/cli/text/top_text.h"
#include "tests/fuzz/targets.h"

namespace tutti::fuzz {

namespace {

const std::string kMetrics =
    "# TYPE tutti_jobs gauge\n"
    "tutti_jobs{kind=\"run\",state=\"done\"} 3\n"
    "tutti_jobs{kind=\"train\",state=\"running\"} 1\n"
    "tutti_jobs_submitted_total 4\n"
    "tutti_process_resident_memory_bytes 12345678\n"
    "tutti_job_step_duration_seconds{job=\"7\"} 0.25\n"
    "tutti_job_loss{job=\"7\"} 2.5\n"
    "tutti_job_tokens_total{job=\"7\"} 4096\n";

}  // namespace

// Wherever it is cut.
bool take_event_stream(std::string_view bytes) {
  cli::EventStream whole;
  const std::vector<std::string> events = whole.add(bytes);
  cli::EventStream cut;
  std::vector<std::string> pieces;
  for (std::size_t at = 0, size = 1; at < bytes.size(); at += size, size = size % 7 + 1) {
    for (std::string& each : cut.add(bytes.substr(at, size))) pieces.push_back(std::move(each));
  }
  require(pieces == events, "events depend on where they are cut");
  return !events.empty();
}

std::vector<std::string> event_stream_seeds() {
  return {"id: 3\r\ndata: {\"seq\":3}\r\n\r\n: \n\ndata: a\ndata: b\n\n", "data:\n\ndata\n\n",
          "event: end\ndata: {}\n\n", "data: cut", "\n\n\r\r"};
}

bool take_metrics(std::string_view bytes) {
  boost::system::error_code none;
  const boost::json::value jobs = boost::json::parse(
      R"({"jobs":[{"id":7,"name":"a","kind":"train","state":"running","step":3,"steps":9}]})",
      none);
  const cli::TopInput before{jobs, {}, cli::parse_metrics(kMetrics), Instant{}};
  const cli::TopInput now{jobs, {}, cli::parse_metrics(bytes), Instant{} + std::chrono::seconds(1)};
  const boost::json::value frame = cli::top_frame(now, &before);
  require(!cli::top_page(frame, WallTime{}, cli::Paint::plain).empty(), "nothing is shown");
  static_cast<void>(boost::json::serialize(frame));
  return !now.metrics.empty();
}

std::vector<std::string> metrics_seeds() {
  return {kMetrics,
          "tutti_jobs{state=\"done\"} NaN\ntutti_jobs{state=\"failed\"} 1e300\n"
          "tutti_process_resident_memory_bytes -Inf\n",
          "tutti_jobs{state=\"\ntutti_jobs{state=\"done 1\n", "# only a comment\n", ""};
}

}  // namespace tutti::fuzz
