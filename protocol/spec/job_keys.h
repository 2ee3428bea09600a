// The table of a job spec's keys, and help made from it.
#pragma once

#include "protocol/spec/key_table.h"

namespace tutti::spec {

const Table& job_table();

}  // namespace tutti::spec
