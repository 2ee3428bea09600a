// A job as people name it: its number, or its name, which stands for the newest job of that name.
#pragma once

#include <cstdint>
#include <string>

#include "ops/cli/client/api.h"

namespace tutti::cli {

// Asks the cluster only for a name. Errors: not_found, with the nearest name; those of the API.
Result<std::uint64_t> find_job(Api& api, const std::string& number_or_name);

}  // namespace tutti::cli
