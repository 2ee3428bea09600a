#include "ops/cli/spec_file.h"

#include <unistd.h>

#include <cerrno>

#include "protocol/base/file.h"
#include "protocol/spec/parse.h"

namespace tutti::cli {

namespace {

Result<std::string> read_standard_input() {
  std::string text;
  char buffer[4096];
  while (true) {
    const ssize_t count = ::read(STDIN_FILENO, buffer, sizeof buffer);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return errno_error("cannot read standard input", errno);
    if (count == 0) return text;
    text.append(buffer, static_cast<std::size_t>(count));
    if (text.size() > spec::kSpecBytesMax) return text;  // the parser says that it is too long
  }
}

}  // namespace

Result<spec::JobSpec> read_spec_file(const std::string& file,
                                     const std::vector<std::string>& overrides) {
  const Result<std::string> yaml =
      file == "-" ? read_standard_input() : read_file(file, spec::kSpecBytesMax);
  if (!yaml) return yaml.error();
  return spec::parse_job_spec(*yaml, {file == "-" ? "standard input" : file, overrides});
}

void make_paths_absolute(spec::JobSpec& spec, const std::filesystem::path& folder) {
  const auto fix = [&](std::string& path) {
    if (!path.empty()) path = (folder / path).lexically_normal().string();
  };
  for (std::string& path : spec.data.text) fix(path);
  for (std::string& path : spec.data.tokens) fix(path);
  fix(spec.data.tokenizer);
  fix(spec.model.path);
  fix(spec.train.resume);
  fix(spec.folder);
}

Result<spec::JobSpec> load_spec_file(const std::string& file,
                                     const std::vector<std::string>& overrides) {
  Result<spec::JobSpec> spec = read_spec_file(file, overrides);
  if (!spec) return spec;
  std::error_code failed;
  const std::filesystem::path here = std::filesystem::current_path(failed);
  if (failed) return Error{ErrorCode::unavailable, "the current folder is gone"};
  make_paths_absolute(*spec, file == "-" ? here : (here / file).parent_path());
  return spec;
}

}  // namespace tutti::cli
