// A job spec from a file, checked, with its paths made absolute: what `tutti submit` sends.
//
// Relative paths are relative to the folder of the file, so that a spec means the same wherever one
// stands; from standard input (`-`) they are relative to the current folder. Nothing is opened but
// the spec itself: the cluster's nodes, not this machine, read the data.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "protocol/base/result.h"
#include "protocol/spec/job_spec.h"

namespace tutti::cli {

// The resolved spec. Errors: those of parse_job_spec; not_found.
Result<spec::JobSpec> load_spec_file(const std::string& file,
                                     const std::vector<std::string>& overrides);

// The same before its paths are changed.
Result<spec::JobSpec> read_spec_file(const std::string& file,
                                     const std::vector<std::string>& overrides);

void make_paths_absolute(spec::JobSpec& spec, const std::filesystem::path& folder);

}  // namespace tutti::cli
