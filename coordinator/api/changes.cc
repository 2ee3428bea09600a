#include "coordinator/api/changes.h"

#include <boost/json/object.hpp>
#include <boost/json/serialize.hpp>

#include "coordinator/api/ask.h"

namespace tutti::api {

boost::asio::awaitable<coordinator::AnswerBody> change(const ClusterParts& parts,
                                                       coordinator::Input input,
                                                       coordinator::Caller caller) {
  auto begin = [cluster = &parts.cluster, asked = std::move(input), by = std::move(caller)](
                   auto reply) mutable { cluster->ask(std::move(asked), std::move(by), reply); };
  co_return co_await ask_later<coordinator::AnswerBody>(parts.cluster.host(), begin);
}

Answer answer_of(const coordinator::AnswerBody& body) {
  if (const auto* error = std::get_if<Error>(&body)) return error_answer(*error);
  if (const auto* job = std::get_if<coordinator::JobAccepted>(&body)) {
    boost::json::object out{{"id", job->job.value}, {"existing", job->existing}};
    if (!job->notice.empty()) out["notice"] = job->notice;
    return json_answer(boost::json::serialize(out));
  }
  return json_answer("{}");
}

}  // namespace tutti::api
