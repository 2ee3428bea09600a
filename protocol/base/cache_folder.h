// Where what a machine has found out or made for itself is kept from one start to the next:
// $TUTTI_CACHE, else `tutti` in the user's cache folder. Whatever is there can be removed at any
// time.
#pragma once

#include <filesystem>

namespace tutti {

// Empty: there is none ($TUTTI_CACHE, $XDG_CACHE_HOME and $HOME are all unset). It need not exist.
std::filesystem::path cache_folder();

}  // namespace tutti
