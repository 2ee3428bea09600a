// The JSON body of a request, and what becomes of a change that it asks for.
//
// Heavy (coroutines): include from .cc files only.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <boost/json/object.hpp>

#include <cstdint>
#include <string>
#include <string_view>

#include "coordinator/api/cluster_routes.h"
#include "coordinator/api/route.h"

namespace tutti::api {

inline constexpr std::size_t kReasonBytesMax = 1024;

Error wrong(std::string message);  // invalid_argument

// The body as an object; an empty body is an empty object.
Result<boost::json::object> parse_body(const Call& call);
// Missing or null: empty.
Result<std::string> text_of(const boost::json::object& body, std::string_view name,
                            std::size_t bytes_max);
Result<std::uint64_t> number_of(const boost::json::object& body, std::string_view name,
                                std::uint64_t max);
// Missing: otherwise.
Result<std::uint64_t> number_or(const boost::json::object& body, std::string_view name,
                                std::uint64_t otherwise, std::uint64_t max);
Result<bool> flag_of(const boost::json::object& body, std::string_view name);

// Tells the cluster, and comes back with its durable answer.
boost::asio::awaitable<coordinator::AnswerBody> change(const ClusterParts& parts,
                                                       coordinator::Input input,
                                                       coordinator::Caller caller);
Answer answer_of(const coordinator::AnswerBody& body);

}  // namespace tutti::api
