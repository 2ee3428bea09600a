// What `tutti doctor` finds: each thing looked at, how it is, and what to do where it is not well.
#pragma once

#include <boost/json/value.hpp>

#include <filesystem>
#include <string>
#include <vector>

#include "ops/cli/client/api.h"
#include "ops/cli/text/table.h"
#include "worker/inventory/gpus.h"

namespace tutti::cli {

// A problem keeps something from working; a note is worth knowing.
enum class Verdict { good, note, problem };

struct Finding {
  Verdict verdict = Verdict::good;
  std::string subject;  // "open files"
  std::string found;    // "1024 at most"
  std::string advice;   // what to do; empty if it is good
};

// This machine, with a state folder that may not be there yet. Writes and removes one small file in
// it.
std::vector<Finding> examine_machine(const std::filesystem::path& state);

// Whether there should be one: it was asked about, or is named by an address.
enum class Expected { nothing, cluster };

// The cluster that the API reaches; one finding if it reaches none.
std::vector<Finding> examine_cluster(Api& api, Expected expected);

// Of what the driver tells. Pure.
std::vector<Finding> judge_gpus(const worker::GpuInventory& inventory);
// Of one that does not answer. Pure.
Finding judge_silence(const Error& error, Expected expected);
// Of the API's answers. Pure.
std::vector<Finding> judge_nodes(const boost::json::value& nodes);
std::vector<Finding> judge_metrics(const std::string& metrics);

bool any_problem(const std::vector<Finding>& findings);
std::string findings_page(const std::vector<Finding>& findings, Paint paint);
boost::json::value findings_json(const std::vector<Finding>& findings);

}  // namespace tutti::cli
