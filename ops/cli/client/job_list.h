// The list of jobs, which comes from the API in pages.
#pragma once

#include <boost/json/value.hpp>

#include <string>

#include "ops/cli/client/api.h"

namespace tutti::cli {

// {"jobs": [...]}: all that fit the query ("state=queued&owner=ada"; empty: all), by number. A
// query with `last` asks for one page. Errors: those of the API.
Result<boost::json::value> list_jobs(Api& api, const std::string& query = {});

}  // namespace tutti::cli
