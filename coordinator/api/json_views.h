// What the API says, as JSON text or values: README.md of this folder is the contract.
#pragma once

#include <boost/json/value.hpp>

#include <string>
#include <string_view>

#include "coordinator/cluster/cluster_facts.h"
#include "coordinator/cluster/cluster_views.h"
#include "coordinator/store/log_store.h"

namespace tutti::api {

boost::json::object json_of(const coordinator::JobSummary& job);
boost::json::object json_of(const coordinator::JobDetail& job);
boost::json::object json_of(const coordinator::TaskView& task);
boost::json::object json_of(const coordinator::Explanation& explained);
boost::json::object json_of(const coordinator::NodeView& node);
boost::json::object json_of(const coordinator::Event& event);

// One entry per process and run of records; parts of a character that are not whole become U+FFFD.
boost::json::array json_of(const std::vector<coordinator::LogChunk>& chunks);

// The bytes with everything that is not UTF-8 replaced by U+FFFD.
std::string valid_utf8(std::string_view bytes);

}  // namespace tutti::api
