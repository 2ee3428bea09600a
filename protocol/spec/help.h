// Keys as rows for people, made from the tables that parsing uses.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <vector>

#include "protocol/spec/key_table.h"

namespace tutti::spec {

struct KeyHelp {
  std::string path;
  std::string takes;    // "a whole number at least 1"
  std::string kinds;    // "train and serve", "all"
  std::string without;  // what holds when it is left out; "required"
  std::string doc;
};

// Of a job spec.
std::vector<KeyHelp> job_key_help();

// "  KEY   meaning (what holds without it)", a line for each key; `default_of` says the latter for
// a key that is not required, "" for nothing.
std::string key_lines(std::span<const Key> keys,
                      const std::function<std::string(const Key&)>& default_of);

}  // namespace tutti::spec
