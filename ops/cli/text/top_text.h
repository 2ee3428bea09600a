// One frame of `tutti top`: jobs, nodes and rates, out of the API's JSON and metrics. Pure.
#pragma once

#include <boost/json/value.hpp>

#include <cstdint>
#include <map>
#include <string>
#include <string_view>

#include "ops/cli/text/table.h"
#include "protocol/base/clock.h"

namespace tutti::cli {

// Samples of Prometheus' text by name and labels, as written: `tutti_job_loss{job="7"}`.
std::map<std::string, double> parse_metrics(std::string_view text);

struct TopInput {
  boost::json::value jobs;   // of /api/v1/jobs, those that have not ended
  boost::json::value nodes;  // of /api/v1/nodes
  std::map<std::string, double> metrics;
  Instant at;
};

// What is shown, as JSON; rates are those since `before`, if there is one.
boost::json::value top_frame(const TopInput& now, const TopInput* before);

std::string top_page(const boost::json::value& frame, WallTime now, Paint paint);

}  // namespace tutti::cli
