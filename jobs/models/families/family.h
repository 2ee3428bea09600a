// Model families: how a kind of model is written down by others, in terms of our description.
//
// A family is one small file and one row of families(): it reads the family's `config.json`, writes
// it again, and names the tensors. Adding one changes nothing else; the test suite iterates the
// table.
//
// Errors: those of read_config (description.h).
#pragma once

#include <boost/json/fwd.hpp>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "jobs/models/description.h"
#include "jobs/models/parameters.h"
#include "protocol/base/result.h"

namespace tutti::models {

struct Family {
  std::string_view name;        // in specs
  std::string_view model_type;  // in config.json
  Result<DecoderDescription> (*read)(const boost::json::object& config);
  void (*write)(const DecoderDescription& description, boost::json::object& config);
  // Of a role that the family's layout has.
  std::string (*tensor_name)(Role role, std::uint32_t layer);
  // How a new model of it is put together; sizes are the caller's.
  DecoderDescription (*parts)();
  // How names in other people's files may begin short: `tensor_name` without this.
  std::string_view prefix = {};
};

std::span<const Family> families();
const Family* find_family(std::string_view name);

// The rows.
extern const Family kGpt2;
extern const Family kLlama;

}  // namespace tutti::models
