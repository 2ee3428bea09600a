// What a server makes of a model's folder when it starts, and when it starts again.
#include "jobs/serving/model_folder.h"

#include <cstdlib>
#include <optional>

#include "tests/unit/models/stored_fp8.h"
#include "tests/unit/serving/tiny_model.h"

namespace tutti::serving {
namespace {

// The user's cache folder is another one for as long as this lives.
class OwnCache {
 public:
  OwnCache() {
    if (const char* const before = std::getenv(kVariable); before != nullptr) before_ = before;
    ::setenv(kVariable, folder_.path().c_str(), 1);
  }
  OwnCache(const OwnCache&) = delete;
  OwnCache& operator=(const OwnCache&) = delete;
  ~OwnCache() {
    if (before_) {
      ::setenv(kVariable, before_->c_str(), 1);
    } else {
      ::unsetenv(kVariable);
    }
  }
  std::filesystem::path images() const { return folder_.path() / "images"; }

 private:
  static constexpr const char* kVariable = "TUTTI_CACHE";
  test::TemporaryFolder folder_;
  std::optional<std::string> before_;
};

struct Started {
  std::vector<float> logits;
  std::int64_t ops;  // by which images were made
};
Started start(const std::filesystem::path& folder, std::string_view format) {
  kernels::ThreadPool pool(2);
  const std::int64_t before = test::calls_of_ops();
  const auto served = load_served_model({&pool}, folder, format);
  if (!served) FAIL(served.error().message);
  const std::int64_t ops = test::calls_of_ops() - before;
  return {test::logits(served->decoder, served->images, 8), ops};
}

}  // namespace

TEST_CASE(
    "serving: a second start makes no image, be it of a checkpoint's codes or of its values") {
  const test::TemporaryFolder folder;
  test::StoredModel(tiny_description(), test::kFp8Config,
                    test::fp8_writer(models::TensorType::f8_e4m3, test::kBlocks))
      .write(folder.path());
  for (const std::string_view format : {"auto", "fp32", "q8_0"}) {
    INFO(format);
    const OwnCache cache;
    const Started first = start(folder.path(), format);
    CHECK(first.ops > 0);
    const auto written = test::contents_of(cache.images());
    CHECK(written.size() == 1);
    const Started second = start(folder.path(), format);
    CHECK(second.ops == 0);
    CHECK(test::contents_of(cache.images()) == written);
    CHECK(test::same_bits(second.logits, first.logits));
  }
}

}  // namespace tutti::serving
