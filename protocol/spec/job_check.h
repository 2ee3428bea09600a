// What no single key can know: contradictions between keys, and the defaults that follow from
// others.
#pragma once

#include "protocol/base/result.h"
#include "protocol/spec/fill.h"
#include "protocol/spec/job_spec.h"

namespace tutti::spec {

// Fills in what follows from other keys (kv_heads, feed_forward, shards, ranks, served name) and
// refuses what cannot be meant. Errors name the place of the key that is most likely wrong.
Result<> resolve_job(JobSpec& spec, const Places& places);

}  // namespace tutti::spec
