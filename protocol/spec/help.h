// The keys of a job spec as rows for people, made from the table that parsing uses.
#pragma once

#include <string>
#include <vector>

namespace tutti::spec {

struct KeyHelp {
  std::string path;
  std::string takes;    // "a whole number at least 1"
  std::string kinds;    // "train and serve", "all"
  std::string without;  // what holds when it is left out; "required"
  std::string doc;
};

std::vector<KeyHelp> job_key_help();

}  // namespace tutti::spec
