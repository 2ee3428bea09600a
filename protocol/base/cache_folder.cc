#include "protocol/base/cache_folder.h"

#include <cstdlib>

namespace tutti {

std::filesystem::path cache_folder() {
  const auto said = [](const char* variable) {
    const char* const text = std::getenv(variable);
    return std::filesystem::path(text == nullptr ? "" : text);
  };
  if (const auto own = said("TUTTI_CACHE"); !own.empty()) return own;
  if (const auto xdg = said("XDG_CACHE_HOME"); !xdg.empty()) return xdg / "tutti";
  const auto home = said("HOME");
  return home.empty() ? home : home / ".cache" / "tutti";
}

}  // namespace tutti
