// The compute binaries beside `tutti`, which answer what needs a model's shapes or kernels.
//
// Threads: the main thread (launcher.h).
#pragma once

#include <boost/json/value.hpp>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "protocol/base/result.h"
#include "protocol/spec/job_spec.h"

namespace tutti::cli {

// Path of the one that runs these words: of a GPU, where they have `--device gpu...` or
// `--device=gpu...`; of several the last counts, as for the tool itself.
std::string rank_binary(const std::vector<std::string>& words);

// "A=b" each, for a program that is started.
std::vector<std::string> own_environment();

// What a job takes of each GPU, and how its products fit into tiles there or on this CPU.
struct DeviceMemory {
  struct Part {
    std::string name;
    std::uint64_t bytes = 0;
  };
  std::vector<Part> parts;
  std::uint64_t bytes = 0;        // of all parts
  std::uint64_t least_bytes = 0;  // with which it runs too, more slowly (`tutti memory --help`)
  std::uint32_t ranks = 1;        // of training, with which a rank takes most
  boost::json::value tiles;       // an object with `lines` for people, and more for programs
};

// As `tutti memory -o json` says it. Errors: corrupt.
Result<DeviceMemory> parse_device_memory(std::string_view output);

// Asks the binary beside this one. Errors: of the spec and its model, which is read here;
// not_found (no binary), deadline_exceeded.
Result<DeviceMemory> ask_device_memory(const spec::JobSpec& spec);

}  // namespace tutti::cli
