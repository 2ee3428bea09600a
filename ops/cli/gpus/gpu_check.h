// What `tutti check --gpu` has found out about this machine's GPUs, and what is wrong with them.
//
// Speeds are compared within the machine: GPUs of one name with the best of them, copies between
// two with the best pair that is joined alike. What a card should reach is not known here.
//
// All of it is pure.
#pragma once

#include <boost/json/object.hpp>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "ops/cli/doctor/findings.h"
#include "worker/inventory/gpus.h"
#include "worker/inventory/measured_links.h"

namespace tutti::cli {

struct GpuMeasure {
  std::uint32_t number = 0;
  std::string name;
  std::string unit;
  std::string gpu;   // uuid; empty: all of them
  std::string peer;  // empty: none
  std::optional<double> value = {};
  bool direct = false;       // a copy to a peer: not by way of the host
  std::string problem = {};  // why there is no value
};

struct GpuCheck {
  struct Seen {
    std::string uuid;
    std::string name;
    std::uint64_t memory_bytes = 0;
  };
  std::vector<Seen> gpus = {};  // that ranks would compute on
  std::string stack = {};
  std::string problem = {};  // why there are none, or why not all was measured; one line
  std::vector<GpuMeasure> measures = {};  // in their order
  worker::GpuInventory readings = {};     // of the driver: the worst while all was measured

  // A line that the rank binary wrote; others are ignored. Whether it is one.
  bool take(std::string_view line);
  // The measure that has begun and not ended; null: none.
  GpuMeasure* open();
};

// What holds of both readings, the older one first: the hotter, all reasons, the higher clock.
void add_reading(worker::GpuInventory& sum, const worker::GpuInventory& reading);

struct Judging {
  // A GPU that reaches less of the best of its kind is a problem. Copies may differ more: half of
  // that for those from and to the host, of which one end is a socket's.
  double share_min = 0.85;
};
std::vector<Finding> judge_check(const GpuCheck& check, const Judging& judging);

// Each pair that was measured, for a worker to tell; one that failed is the slowest there is.
std::vector<worker::MeasuredLink> links_of(const GpuCheck& check);

std::string check_page(const GpuCheck& check, const std::vector<Finding>& findings, Paint paint);
boost::json::object check_json(const GpuCheck& check, const std::vector<Finding>& findings);

}  // namespace tutti::cli
