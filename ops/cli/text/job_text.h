// Jobs, nodes, steps and events as text: the API's JSON in, tables out. Pure.
#pragma once

#include <boost/json/value.hpp>

#include <string>

#include "ops/cli/text/table.h"
#include "protocol/base/clock.h"

namespace tutti::cli {

std::string jobs_table(const boost::json::array& jobs, WallTime now, Paint paint);
std::string job_page(const boost::json::value& job, WallTime now, Paint paint);
std::string nodes_table(const boost::json::array& nodes, Paint paint);
std::string node_page(const boost::json::value& node, Paint paint);

// Steps come one by one: columns of fixed width, so that a stream aligns.
std::string steps_title();
std::string step_row(const boost::json::value& record);

std::string event_row(const boost::json::value& event, Paint paint);

}  // namespace tutti::cli
