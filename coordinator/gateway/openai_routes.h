// `/v1/models`, `/v1/completions` and `/v1/chat/completions`, as OpenAI's clients expect them.
//
// Heavy (coroutines): include from .cc files only. Ownership: the gateway outlives the server that
// has the routes.
#pragma once

#include <vector>

#include "coordinator/api/route.h"
#include "coordinator/gateway/gateway_host.h"

namespace tutti::gateway {

std::vector<api::Route> openai_routes(GatewayHost& gateway);

}  // namespace tutti::gateway
