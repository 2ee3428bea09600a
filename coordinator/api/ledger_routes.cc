// A backup of the ledger while it is in use: /api/v1/ledger/backup.
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "coordinator/api/ask.h"
#include "coordinator/api/cluster_routes.h"
#include "coordinator/state_folder.h"
#include "protocol/base/secret.h"

namespace tutti::api {

namespace asio = boost::asio;

namespace {

constexpr std::size_t kPartBytes = std::size_t{256} << 10;

// A file that is gone once nobody needs it.
class TemporaryCopy {
 public:
  explicit TemporaryCopy(std::filesystem::path path) : path_(std::move(path)) {}
  TemporaryCopy(const TemporaryCopy&) = delete;
  TemporaryCopy& operator=(const TemporaryCopy&) = delete;
  ~TemporaryCopy() {
    std::error_code ignored;
    std::filesystem::remove(path_, ignored);
  }
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

asio::awaitable<void> send_file(std::shared_ptr<TemporaryCopy> copy, BodyStream& body) {
  std::ifstream file(copy->path(), std::ios::binary);
  while (file) {
    std::string part(kPartBytes, '\0');
    file.read(part.data(), static_cast<std::streamsize>(part.size()));
    part.resize(static_cast<std::size_t>(file.gcount()));
    if (part.empty() || !co_await body.write(std::move(part))) co_return;
  }
}

asio::awaitable<Answer> back_up(const ClusterParts& parts) {
  const auto copy = std::make_shared<TemporaryCopy>(
      parts.state_folder / (coordinator::kLedgerCopyPrefix + random_hex(8)));
  auto begin = [cluster = &parts.cluster, file = copy->path()](auto reply) {
    cluster->back_up(file, reply);
  };
  const Result<> made = co_await ask_later<Result<>>(parts.cluster.host(), begin);
  if (!made) co_return error_answer(made.error());
  Answer answer;
  answer.content_type = "application/octet-stream";
  answer.stream = [copy](BodyStream& body) { return send_file(copy, body); };
  co_return answer;
}

}  // namespace

std::vector<Route> ledger_routes(const ClusterParts& parts) {
  const auto shared = std::make_shared<const ClusterParts>(parts);
  return {
      {"POST", "/api/v1/ledger/backup", Role::admin,
       [shared](const Call&) { return back_up(*shared); }},
  };
}

}  // namespace tutti::api
