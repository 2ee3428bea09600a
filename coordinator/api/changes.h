// What becomes of a change that a request asks for: the cluster is told, and its durable answer
// comes back.
//
// Heavy (coroutines): include from .cc files only.
#pragma once

#include <boost/asio/awaitable.hpp>

#include "coordinator/api/cluster_routes.h"
#include "coordinator/api/route.h"

namespace tutti::api {

boost::asio::awaitable<coordinator::AnswerBody> change(const ClusterParts& parts,
                                                       coordinator::Input input,
                                                       coordinator::Caller caller);
Answer answer_of(const coordinator::AnswerBody& body);

}  // namespace tutti::api
